// Writes the lines of a plan (tests/compat/plan.py) with rskafka, which has no partitioner and no transactions.
// arguments: bootstrap topic codec plain plan
use std::collections::{BTreeMap, HashMap};
use std::env::args;

use base64::{engine::general_purpose::STANDARD, Engine};
use chrono::{TimeZone, Utc};
use rskafka::client::partition::{Compression, UnknownTopicHandling};
use rskafka::client::ClientBuilder;
use rskafka::record::Record;

type Failure = Box<dyn std::error::Error>;

const AT_ONCE: usize = 50;

fn content(field: &str) -> Result<Option<Vec<u8>>, Failure> {
    if field == "-" {
        return Ok(None);
    }
    Ok(Some(STANDARD.decode(&field[1..])?))
}

fn headers(field: &str) -> Result<BTreeMap<String, Vec<u8>>, Failure> {
    let mut found = BTreeMap::new();
    for pair in field.split(',').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once(':').ok_or("header without a colon")?;
        let name = String::from_utf8(content(name)?.unwrap_or_default())?;
        let value = content(value)?.ok_or("error: rskafka has no header without a value")?;
        if found.insert(name, value).is_some() {
            return Err("error: rskafka has no header twice".into());
        }
    }
    Ok(found)
}

// Where the Java client puts a key; without one, the first partition.
fn partition_of(key: Option<&[u8]>, partitions: i32) -> i32 {
    let Some(key) = key else { return 0 };
    const M: u32 = 0x5bd1e995;
    let mut h = 0x9747b28cu32 ^ key.len() as u32;
    let words = key.chunks_exact(4);
    let rest = words.remainder();
    for word in words {
        let k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        h = h.wrapping_mul(M) ^ (k ^ k >> 24).wrapping_mul(M);
    }
    if !rest.is_empty() {
        for (at, byte) in rest.iter().enumerate() {
            h ^= (*byte as u32) << (8 * at);
        }
        h = h.wrapping_mul(M);
    }
    h = (h ^ h >> 13).wrapping_mul(M);
    ((h ^ h >> 15) & 0x7fffffff) as i32 % partitions
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let given: Vec<String> = args().collect();
    let (bootstrap, topic, codec, plan) = (&given[1], &given[2], &given[3], &given[5]);
    let compression = match codec.as_str() {
        "gzip" => Compression::Gzip,
        "snappy" => Compression::Snappy,
        "lz4" => Compression::Lz4,
        "zstd" => Compression::Zstd,
        _ => Compression::NoCompression,
    };
    let client = ClientBuilder::new(vec![bootstrap.clone()]).build().await?;
    let topics = client.list_topics().await?;
    let found = topics.iter().find(|one| &one.name == topic).ok_or("no such topic")?;
    let partitions = found.partitions.len() as i32;
    let mut waiting: HashMap<i32, Vec<Record>> = HashMap::new();
    for line in std::fs::read_to_string(plan)?.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let key = content(fields[0])?;
        let timestamp = if fields[2] == "-" {
            Utc::now()
        } else {
            Utc.timestamp_millis_opt(fields[2].parse()?).single().ok_or("no such time")?
        };
        let partition = partition_of(key.as_deref(), partitions);
        let record = Record { key, value: content(fields[1])?, headers: headers(fields[3])?, timestamp };
        waiting.entry(partition).or_default().push(record);
    }
    for (partition, records) in waiting {
        let writer = client.partition_client(topic.clone(), partition, UnknownTopicHandling::Retry).await?;
        for part in records.chunks(AT_ONCE) {
            writer.produce(part.to_vec(), compression).await?;
        }
    }
    Ok(())
}
