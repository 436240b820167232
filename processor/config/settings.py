"""The settings' models: every key with its default, bounds and meaning."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

if TYPE_CHECKING:
    from processor.core.rules import Rules

PREFIX: Final = "RUN_STEPS_"

NOT_SETTINGS: Final = frozenset({"RUN_STEPS_CONFIG", "RUN_STEPS_CACHE", "RUN_STEPS_MAVEN_REPOSITORY"})
"""Variables with our prefix that the command line and the embedded broker read; they are no settings of the worker."""

_MIB: Final = 1024 * 1024
_DAY_MS: Final = 86_400_000
_YEAR_S: Final = 31_536_000


def _key(default: Any, meaning: str, **bounds: Any) -> Any:
    """A key of a table: its default, its meaning in one line, and its bounds in pydantic's terms."""
    return Field(default=default, description=meaning, **bounds)


class Section(BaseModel):
    """Base of all tables: no unknown keys, no silent conversion, no change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, hide_input_in_errors=True)

    @field_validator("*")
    @classmethod
    def _one_line_of_text(cls, value: Any) -> Any:
        """Refuse line ends and other controls, and bytes of a variable that are no UTF-8 (surrogates here)."""
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if isinstance(text, str) and any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
            raise PydanticCustomError("control_character", "holds a control character, or is not UTF-8")
        return value


class Kafka(Section):
    """Connection to the brokers, for every client of the worker."""

    bootstrap_servers: str = _key(
        "127.0.0.1:9092", "Brokers to ask first: host:port, separated by commas.", min_length=1
    )
    client_id: str = _key("run-steps", "Our name in the broker's logs and quotas.", min_length=1, max_length=200)
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = _key(
        "PLAINTEXT", "Transport and authentication."
    )
    ssl_ca_file: str = _key("", "PEM file of the authorities to trust; empty: those of the operating system.")
    ssl_cert_file: str = _key("", "PEM file of our own certificate chain (mutual TLS).")
    ssl_key_file: str = _key("", "PEM file of the private key of ssl_cert_file.")
    ssl_key_password: SecretStr = _key(SecretStr(""), "Password of ssl_key_file; better: ssl_key_password_file.")
    ssl_key_password_file: str = _key("", "File that holds the password of ssl_key_file.")
    sasl_mechanism: Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = _key(
        "", "How to authenticate; needed with the SASL protocols."
    )
    sasl_username: str = _key("", "User name for PLAIN and SCRAM.")
    sasl_password: SecretStr = _key(SecretStr(""), "Password for PLAIN and SCRAM; better: sasl_password_file.")
    sasl_password_file: str = _key("", "File that holds the password for PLAIN and SCRAM.")
    token_provider: str = _key(
        "", 'Source of OAUTHBEARER tokens: "aws_msk_iam", "azure" or your own "module:attribute".'
    )
    aws_region: str = _key("", 'Region of the cluster, for token_provider = "aws_msk_iam".')
    azure_scope: str = _key("", 'Scope of the token for token_provider = "azure", as https://<namespace>/.default.')
    request_timeout_ms: int = _key(30_000, "How long one request may take.", ge=1000, le=600_000)
    metadata_max_age_ms: int = _key(60_000, "Interval of metadata refreshes.", ge=1000, le=_DAY_MS)
    connections_max_idle_ms: int = _key(
        180_000,
        "Close connections idle for longer; keep it below what the network between cuts.",
        ge=10_000,
        le=_DAY_MS,
    )
    unavailable_after_s: float = _key(
        300.0, "A broker silent for longer ends the process with exit 75.", gt=0, le=86_400
    )

    def connection(self) -> dict[str, Any]:
        """The keys that say how to connect, secrets in clear: the arguments of `Connection.build`."""
        given = {key: getattr(self, key) for key in type(self).model_fields}
        for key in ("ssl_key_password_file", "sasl_password_file", "unavailable_after_s"):
            del given[key]
        return {k: v.get_secret_value() if isinstance(v, SecretStr) else v for k, v in given.items()}


class Source(Section):
    """The source topic, and the consumer group that reads it."""

    topic: str = _key("run-step-events", "Topic of the run-step events.", min_length=1)
    group_id: str = _key("run-steps", "Consumer group all workers share.", min_length=1, max_length=200)
    instance_id: str = _key(
        "",
        "Static membership: a name that this worker keeps across restarts; empty: dynamic.",
        max_length=200,
    )
    session_timeout_ms: int = _key(30_000, "A worker silent for longer loses its partitions.", ge=1000, le=1_800_000)
    heartbeat_interval_ms: int = _key(3000, "Interval of the heartbeats to the group coordinator.", ge=100, le=600_000)
    rebalance_timeout_ms: int = _key(60_000, "Maximum wait of a rebalance for a drain.", ge=1000, le=1_800_000)
    start: Literal["earliest", "latest"] = _key("earliest", "Start position of a group without committed offsets.")
    unknown_events: Literal["ignore", "dead-letter"] = _key("ignore", "What to do with unknown event names.")
    schema_frames: bool = _key(False, "Read values behind a schema registry's frame; a replay needs the same.")
    fetch_max_bytes: int = _key(4 * _MIB, "Maximum bytes of one fetch from one broker.", ge=1024, le=1024 * _MIB)
    partition_fetch_bytes: int = _key(
        2 * _MIB, "Maximum bytes of a fetch from a partition; unset: fetch_max_bytes if less.", ge=1024, le=1024 * _MIB
    )
    max_poll_records: int = _key(4000, "Maximum records folded in one turn of the loop.", ge=1, le=1_000_000)


class Output(Section):
    """Topics of finished steps and unusable records. An empty outcome topic switches that outcome off."""

    completed: str = _key("run-steps.completed", "Topic of completed steps.")
    failed: str = _key("run-steps.failed", "Topic of failed steps.")
    cancelled: str = _key("run-steps.cancelled", "Topic of cancelled steps.")
    expired: str = _key(
        "run-steps.expired", "Topic of expired steps; not to be switched off: it holds the clock marks.", min_length=1
    )
    dead_letter: str = _key("run-steps.dead-letter", "Topic of records that could not be used.", min_length=1)
    object_type: str = _key("", 'Write this as "object" in every snapshot; empty: as it came in.')
    cloudevents_source: str = _key(
        "",
        'Publish steps with CloudEvents headers of this "source" (a URI reference); empty: without.',
        max_length=1024,
        pattern=r"^[!#$&-;=?-Z_a-z~%\[\]]*$",  # the characters of RFC 3986
    )
    max_record_bytes: int = _key(
        1_000_000,
        "Larger snapshots become a reference in the dead letters; below max.message.bytes.",
        ge=1024,
        le=1024 * _MIB,
    )


class Delivery(Section):
    """Delivery: mode, commit interval, writer."""

    mode: Literal["exactly_once", "at_least_once"] = _key(
        "exactly_once", "Transactions, or idempotent writes where the broker has none."
    )
    commit_interval_ms: int = _key(
        100, "How often outcomes and offsets are committed; while all is behind, up to a second apart.", ge=1, le=60_000
    )
    transactional_id_prefix: str = _key("", "Prefix of the transactional ids; empty: source.group_id.", max_length=200)
    transaction_timeout_ms: int = _key(
        15_000,
        "The broker aborts a transaction that is open for longer (its own limit: 900000).",
        ge=1000,
        le=900_000,
    )
    compression: Literal["none", "lz4", "zstd", "gzip", "snappy"] = _key("zstd", "Codec of the records we write.")
    commit_timeout_s: float = _key(15.0, "How long one commit may take before the writer is replaced.", gt=0, le=900)
    drain_timeout_s: float = _key(
        20.0, "How long a worker may finish its work when it stops or loses partitions.", gt=0, le=900
    )
    takeover_after_s: float = _key(
        1.0, "Abort a dead worker's open transaction when offsets stay unstable for longer.", ge=0, le=900
    )
    max_unit_records: int = _key(50_000, "Commit early at this many uncommitted records.", ge=1, le=10_000_000)
    max_unit_bytes: int = _key(32 * _MIB, "Commit early at this many uncommitted bytes.", ge=1024, le=1024 * _MIB)


class Steps(Section):
    """Most of the rules (docs/semantics.md lists all): the same log and the same rules give the same outcome."""

    grace_s: int = _key(60, "Wait for late events after a step's deadline.", ge=0, le=_YEAR_S)
    max_age_s: int = _key(86_400, "Deadline of a step that names none, from its first event.", ge=1, le=_YEAR_S)
    ended_retention_s: int = _key(60, "Stream time for which ended steps and runs are remembered.", ge=0, le=_YEAR_S)
    ended_retention_records: int = _key(
        1_000_000, "Number of offsets for which ended steps and runs are remembered.", ge=0, le=10**12
    )
    idle_grace_s: float = _key(
        30.0,
        "Idle time of a partition at its end before due deadlines fire by a clock mark.",
        gt=0,
        le=86_400,
    )
    max_step_bytes: int = _key(
        3 * _MIB // 2,
        "Largest step; a larger one is rejected. The checkpoint topic needs five times this as max.message.bytes.",
        ge=1024,
        le=16 * _MIB,
    )
    max_open_steps: int = _key(100_000, "Most open steps in one partition.", ge=1, le=100_000_000)


class Checkpoints(Section):
    """Checkpoints of long-lived steps, so that a restart need not read far back."""

    topic: str = _key("", 'Compacted topic; empty: "<source.topic>.checkpoints".')
    interval_s: float = _key(30.0, "A step that is open and changed for longer gets a checkpoint.", gt=0, le=86_400)
    restore_timeout_s: float = _key(60.0, "Longest time of a restore without progress.", gt=0, le=86_400)


class Rejections(Section):
    """Circuit breaker: stop the worker before a whole topic becomes dead letters."""

    max_share: float = _key(0.5, "Stop when a larger share of window_records is rejected; 0: never.", ge=0, le=1)
    window_records: int = _key(10_000, "Records over which max_share is measured; 0: no check.", ge=0, le=10_000_000)
    max_run: int = _key(
        5000, "Stop when so many records in a row of one partition are rejected; 0: never.", ge=0, le=10_000_000
    )


class Supervisor(Section):
    """Limits after which a worker is restarted, and after which the process ends."""

    stall_timeout_s: float = _key(120.0, "Longest time that a partition may make no progress.", gt=0, le=86_400)
    max_restarts: int = _key(5, "More restarts than this in restart_window_s end the process.", ge=0, le=1000)
    restart_window_s: float = _key(600.0, "Time over which max_restarts is counted.", gt=0, le=86_400)
    backoff_initial_s: float = _key(0.5, "Pause before the first restart; doubles with each.", gt=0, le=3600)
    backoff_max_s: float = _key(30.0, "Longest pause before a restart.", gt=0, le=3600)


class SelfAudit(Section):
    """Self-audit: a worker folds random published steps again and compares, as `replay` does for all of them."""

    enabled: bool = _key(False, "Check published steps; needs READ on the outcome topics.")
    steps_per_minute: float = _key(6.0, "Maximum steps that a worker process checks in a minute.", gt=0, le=6000)
    cpu_share: float = _key(0.05, "Largest share of one processor that checking may take.", gt=0, le=1)
    max_range_records: int = _key(
        1_000_000, "Maximum source records that one check reads; else it is skipped.", ge=1000, le=10**9
    )


class Http(Section):
    """Health, metrics and the list of open steps."""

    enabled: bool = _key(True, "Serve /healthz, /readyz, /metrics and /steps.")
    host: str = _key("127.0.0.1", "Address to listen on; 0.0.0.0 only inside a container.", min_length=1)
    port: int = _key(8080, "Port to listen on; 0: any that is free.", ge=0, le=65_535)
    control: bool = _key(False, "Take requests to pause and resume partitions, from this machine alone.")


class Log(Section):
    """Log of the worker on standard error."""

    level: Literal["debug", "info", "warning", "error"] = _key("info", "Minimum log level.")
    format: Literal["auto", "json", "console"] = _key("auto", "auto: console on a terminal, JSON elsewhere.")


class Tracing(Section):
    """OpenTelemetry spans of the worker: a trace of each unit, with its polls, its fold and its commit."""

    enabled: bool = _key(False, "Send spans by OTLP over HTTP; needs the extra otlp.")
    endpoint: str = _key(
        "", "Where to send them: http(s)://host:port/v1/traces; empty: as OTEL_EXPORTER_OTLP_ENDPOINT says."
    )
    sample_share: float = _key(1.0, "Share of the units that are traced.", gt=0, le=1)


class Origin(NamedTuple):
    """Source of a value; `name` is the file's path or the variable's name, empty for a default."""

    kind: Literal["default", "file", "env"]
    name: str = ""

    def __str__(self) -> str:
        return self.name or self.kind


class Effective(NamedTuple):
    """One line of what is in force. Secrets are shown as "(set)"."""

    section: str
    key: str
    value: str | int | float | bool
    origin: Origin


class Settings(BaseSettings):
    """All settings. `Settings()` is the defaults, whatever the environment says."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        hide_input_in_errors=True,
    )

    kafka: Kafka = Kafka()
    source: Source = Source()
    output: Output = Output()
    delivery: Delivery = Delivery()
    steps: Steps = Steps()
    checkpoints: Checkpoints = Checkpoints()
    rejections: Rejections = Rejections()
    supervisor: Supervisor = Supervisor()
    self_audit: SelfAudit = SelfAudit()
    http: Http = Http()
    log: Log = Log()
    tracing: Tracing = Tracing()

    _origins: dict[str, Origin] = PrivateAttr(default_factory=dict)
    _begin_at: dict[int, str | int] = PrivateAttr(default_factory=dict)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the constructor's arguments only: a test's settings must not depend on the environment."""
        return (init_settings,)

    @property
    def begin_at(self) -> dict[int, Any]:
        """Start of partitions without a committed offset (`serve.positions`): given for one start, so not a key."""
        return self._begin_at

    def beginning_at(self, wanted: Mapping[int, str | int]) -> Settings:
        """Copy the settings with start positions (an offset or a name) for partitions without a committed offset."""
        settings = self.model_copy()
        settings._begin_at = dict(wanted)
        return settings

    def origin(self, section: str, key: str) -> Origin:
        """Source of the value of `section.key`."""
        return self._origins.get(f"{section}.{key}", Origin("default"))

    def effective(self) -> Iterator[Effective]:
        """Every key in force, in the order of the file."""
        for section, key, _ in keys():
            value = getattr(getattr(self, section), key)
            if isinstance(value, SecretStr):
                value = "(set)" if value.get_secret_value() else ""
            yield Effective(section, key, value, self.origin(section, key))

    @property
    def outcome_topics(self) -> dict[str, str]:
        """Status on the wire -> topic; an empty topic is switched off."""
        out = self.output
        return {
            "completed": out.completed,
            "failed": out.failed,
            "cancelled": out.cancelled,
            "expired": out.expired,
        }

    @property
    def checkpoint_topic(self) -> str:
        return self.checkpoints.topic or f"{self.source.topic}.checkpoints"

    @property
    def transactional_id_prefix(self) -> str:
        return self.delivery.transactional_id_prefix or self.source.group_id

    def rules(self) -> Rules:
        """The rules for the core."""
        from processor.core.rules import Rules

        return Rules(
            grace_s=self.steps.grace_s,
            max_age_s=self.steps.max_age_s,
            ended_retention_s=self.steps.ended_retention_s,
            ended_retention_records=self.steps.ended_retention_records,
            max_step_bytes=self.steps.max_step_bytes,
            max_open_steps=self.steps.max_open_steps,
            max_record_bytes=self.output.max_record_bytes,
            unknown_events=self.source.unknown_events,
            object_type=self.output.object_type,
            schema_frames=self.source.schema_frames,
            cloudevents_source=self.output.cloudevents_source,
        )


def sections() -> dict[str, type[Section]]:
    """Section name -> its model, in the order of the file."""
    return {name: type(info.default) for name, info in Settings.model_fields.items()}


def keys() -> Iterator[tuple[str, str, FieldInfo]]:
    """Every (section, key, field), in the order of the file."""
    for section, model in sections().items():
        for key, info in model.model_fields.items():
            yield section, key, info


def variable(section: str, key: str) -> str:
    """The environment variable of a key."""
    return f"{PREFIX}{section}__{key}".upper()


def default_of(info: FieldInfo) -> Any:
    default = info.default
    return default.get_secret_value() if isinstance(default, SecretStr) else default
