#!/usr/bin/env bash
# surprise: confluent-kafka's ProtobufDeserializer reads a Charge as a Refund of the same amount, though the record says which one it is.
# versions: PyPI confluent-kafka 2.16.1 with its extras protobuf and schemaregistry, protobuf 7.36.2
# expected: an error. A record of the schema registry begins with the schema's id and the place of its message in the schema, which is there
#   because a file has several messages; the deserializer is made for one of them, and looks the writer's one up.
# does: what it has found it uses for subjects and rules alone; the bytes are read as the message that it was made for. Protobuf has no names on the
#   wire, so fields of the same number and type are taken over, the others are kept as unknown ones or stay empty: of a topic with two kinds
#   of records a consumer for one gets both, as the same kind.

. "$(dirname "$0")/lib/finding.sh"
python_packages "confluent-kafka[protobuf,schemaregistry]==2.16.1" protobuf==7.36.2
seen=$(timeout 60 "$WORK/venv/bin/python" - <<'PYTHON'
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer, ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

Field = descriptor_pb2.FieldDescriptorProto
file = descriptor_pb2.FileDescriptorProto(name="payments.proto", package="payments", syntax="proto3")
for name in ("Charge", "Refund"):
    message = file.message_type.add(name=name)
    message.field.add(name="order", number=1, type=Field.TYPE_STRING, label=Field.LABEL_OPTIONAL)
    message.field.add(name="cents", number=2, type=Field.TYPE_INT64, label=Field.LABEL_OPTIONAL)
pool = descriptor_pool.DescriptorPool()
pool.Add(file)
Charge, Refund = (message_factory.GetMessageClass(pool.FindMessageTypeByName(f"payments.{name}")) for name in ("Charge", "Refund"))

registry = SchemaRegistryClient.new_client({"url": "mock://"})
context = SerializationContext("payments", MessageField.VALUE)
for written in (Charge(order="order-7", cents=1250), Refund(order="order-7", cents=1250)):
    data = ProtobufSerializer(type(written), registry)(written, context)
    print(f"{written.DESCRIPTOR.name} is written as {data[:1].hex()}, a schema's id, {data[5:-12].hex()}, {data[-12:]}")
    for reader in (Charge, Refund):
        read = ProtobufDeserializer(reader, {}, registry)(data, context)
        print(f"  read as {read.DESCRIPTOR.name}: {read.order} {read.cents}")
PYTHON
)
verdict "Charge is written as 00, a schema's id, 00, b'\\n\\x07order-7\\x10\\xe2\\t'
  read as Charge: order-7 1250
  read as Refund: order-7 1250
Refund is written as 00, a schema's id, 0202, b'\\n\\x07order-7\\x10\\xe2\\t'
  read as Charge: order-7 1250
  read as Refund: order-7 1250" "$seen"
