"""The settings: one TOML file, then the environment, checked once and frozen.

What lives here: every key with its default, bounds and meaning; reading; the rules between keys; and
`config/processor.toml`, which `python -m processor.config` prints from the models. Nothing is read at import,
and nothing but `load` reads anything.

A key is named `<section>.<key>`, in the environment `RUN_STEPS_<SECTION>__<KEY>`, which wins over the file.
Units are in the names (`_ms`, `_s`, `_bytes`, `_records`). An empty string means "not set". A secret X may
also be given as `X_file`, the path of a file that holds it. Paths are relative to the working directory.
"""

from __future__ import annotations

import difflib
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, get_args

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from processor.errors import ConfigError

if TYPE_CHECKING:
    from processor.core.rules import Rules

PREFIX: Final = "RUN_STEPS_"

NOT_SETTINGS: Final = frozenset({"RUN_STEPS_CONFIG", "RUN_STEPS_CACHE", "RUN_STEPS_MAVEN_REPOSITORY"})
"""Variables with our prefix that the command line and the embedded broker read; no setting of the worker."""

_MIB: Final = 1024 * 1024
_DAY_MS: Final = 86_400_000
_YEAR_S: Final = 31_536_000


def _key(default: Any, meaning: str, **bounds: Any) -> Any:
    """A key of a table: its default, what it is for in one line, and its bounds as pydantic spells them."""
    return Field(default=default, description=meaning, **bounds)


class Section(BaseModel):
    """What all tables share: no unknown keys, no silent conversion, no change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, hide_input_in_errors=True)


class Kafka(Section):
    """How to reach the brokers, for every connection the worker makes."""

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
    metadata_max_age_ms: int = _key(60_000, "How often topics and leaders are asked for again.", ge=1000, le=_DAY_MS)
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
    """The topic the events come from, and our membership of the group that reads it."""

    topic: str = _key("run-step-events", "Topic of the run-step events.", min_length=1)
    group_id: str = _key("run-steps", "Consumer group all workers share.", min_length=1, max_length=200)
    instance_id: str = _key(
        "",
        "Static membership: a name that this worker keeps across restarts; empty: dynamic.",
        max_length=200,
    )
    session_timeout_ms: int = _key(30_000, "A worker silent for longer loses its partitions.", ge=1000, le=1_800_000)
    heartbeat_interval_ms: int = _key(3000, "How often a worker says that it is there.", ge=100, le=600_000)
    rebalance_timeout_ms: int = _key(60_000, "How long a rebalance waits for a worker to drain.", ge=1000, le=1_800_000)
    start: Literal["earliest", "latest"] = _key("earliest", "Where a group without committed offsets begins.")
    unknown_events: Literal["ignore", "dead-letter"] = _key(
        "ignore", "What to do with events of names nobody has told us about."
    )
    fetch_max_bytes: int = _key(4 * _MIB, "Most that one fetch brings from one broker.", ge=1024, le=1024 * _MIB)
    partition_fetch_bytes: int = _key(_MIB, "Most that one fetch brings of one partition.", ge=1024, le=1024 * _MIB)
    max_poll_records: int = _key(4000, "Most records folded before the loop looks around.", ge=1, le=1_000_000)


class Output(Section):
    """Where finished steps and unusable records go. An empty outcome topic switches that outcome off."""

    completed: str = _key("run-steps.completed", "Topic of completed steps.")
    failed: str = _key("run-steps.failed", "Topic of failed steps.")
    cancelled: str = _key("run-steps.cancelled", "Topic of cancelled steps.")
    expired: str = _key(
        "run-steps.expired", "Topic of expired steps; not to be switched off: it holds the clock marks.", min_length=1
    )
    dead_letter: str = _key("run-steps.dead-letter", "Topic of records that could not be used.", min_length=1)
    object_type: str = _key("", 'Write this as "object" in every snapshot; empty: as it came in.')
    max_record_bytes: int = _key(
        1_000_000,
        "Larger snapshots become a reference in the dead letters; below max.message.bytes.",
        ge=1024,
        le=1024 * _MIB,
    )


class Delivery(Section):
    """How outcomes are written and committed."""

    mode: Literal["exactly_once", "at_least_once"] = _key(
        "exactly_once", "Transactions, or idempotent writes where the broker has none."
    )
    commit_interval_ms: int = _key(100, "How often outcomes and offsets are committed.", ge=1, le=60_000)
    transactional_id_prefix: str = _key("", "Begins the transactional ids; empty: source.group_id.", max_length=200)
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
    max_unit_records: int = _key(50_000, "Commit early when so many records are waiting.", ge=1, le=10_000_000)
    max_unit_bytes: int = _key(32 * _MIB, "Commit early when so many bytes are waiting.", ge=1024, le=1024 * _MIB)


class Steps(Section):
    """The rules' own numbers (docs/semantics.md): the same log and the same values give the same outcome."""

    grace_s: int = _key(60, "How long after its deadline a step is still waited for.", ge=0, le=_YEAR_S)
    max_age_s: int = _key(86_400, "Deadline of a step that names none, from its first event.", ge=1, le=_YEAR_S)
    ended_retention_s: int = _key(60, "Remember ended steps and runs for so much stream time.", ge=0, le=_YEAR_S)
    ended_retention_records: int = _key(
        1_000_000, "Remember ended steps and runs for so many offsets.", ge=0, le=10**12
    )
    idle_grace_s: float = _key(
        30.0,
        "A partition at its end for so long has its due deadlines fire by a clock mark.",
        gt=0,
        le=86_400,
    )
    max_step_bytes: int = _key(8 * _MIB, "A step that grows beyond this is rejected.", ge=1024, le=16 * _MIB)
    max_open_steps: int = _key(100_000, "Most open steps in one partition.", ge=1, le=100_000_000)


class Checkpoints(Section):
    """State of long-lived steps, so that a restart need not read far back."""

    topic: str = _key("", 'Compacted topic; empty: "<source.topic>.checkpoints".')
    interval_s: float = _key(30.0, "A step open and changed for longer is written down.", gt=0, le=86_400)
    restore_timeout_s: float = _key(60.0, "A restore without any progress for longer is given up.", gt=0, le=86_400)


class Rejections(Section):
    """The breaker: stop for a person rather than send a whole topic to the dead letters."""

    max_share: float = _key(0.5, "Stop when a larger share of window_records is rejected; 0: never.", ge=0, le=1)
    window_records: int = _key(10_000, "Records that max_share is taken over; 0: no such check.", ge=0, le=10_000_000)
    max_run: int = _key(5000, "Stop after so many rejections in a row; 0: never.", ge=0, le=10_000_000)


class Supervisor(Section):
    """When a worker is torn down and started again, and when it gives up."""

    stall_timeout_s: float = _key(120.0, "A partition that stands still for longer is a fault.", gt=0, le=86_400)
    max_restarts: int = _key(5, "More restarts than this in restart_window_s end the process.", ge=0, le=1000)
    restart_window_s: float = _key(600.0, "The time that max_restarts is counted over.", gt=0, le=86_400)
    backoff_initial_s: float = _key(0.5, "Pause before the first restart; doubles with each.", gt=0, le=3600)
    backoff_max_s: float = _key(30.0, "Longest pause before a restart.", gt=0, le=3600)


class SelfAudit(Section):
    """A worker folds the ranges of random published steps once more and compares, as `replay` does for all of them."""

    enabled: bool = _key(False, "Check published steps; needs READ on the outcome topics.")
    steps_per_minute: float = _key(6.0, "Most steps that a worker process checks in a minute.", gt=0, le=6000)
    cpu_share: float = _key(0.05, "Most of one processor that checking may take.", gt=0, le=1)
    max_range_records: int = _key(
        1_000_000, "A check that would read more of the source than this is left out.", ge=1000, le=10**9
    )


class Http(Section):
    """Health, metrics and the list of open steps."""

    enabled: bool = _key(True, "Serve /healthz, /readyz, /metrics and /steps.")
    host: str = _key("127.0.0.1", "Address to listen on; 0.0.0.0 only inside a container.", min_length=1)
    port: int = _key(8080, "Port to listen on; 0: any that is free.", ge=0, le=65_535)


class Log(Section):
    """What the worker says on standard error."""

    level: Literal["debug", "info", "warning", "error"] = _key("info", "The least to say.")
    format: Literal["auto", "json", "console"] = _key("auto", "auto: console on a terminal, JSON elsewhere.")


class Origin(NamedTuple):
    """Where a value comes from; `name` is the file's path or the variable's name, empty for a default."""

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
    """Everything the program can be told. `Settings()` is the defaults, whatever the environment says."""

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
        """Only what the constructor is given: a test's settings must not depend on who runs it."""
        return (init_settings,)

    @property
    def begin_at(self) -> dict[int, Any]:
        """Where partitions without a committed offset begin (`processor.positions`): asked for once, so no key."""
        return self._begin_at

    def beginning_at(self, wanted: Mapping[int, str | int]) -> Settings:
        """The same settings, with these beginnings."""
        settings = self.model_copy()
        settings._begin_at = dict(wanted)
        return settings

    def origin(self, section: str, key: str) -> Origin:
        """Where the value of `section.key` comes from."""
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
        """What the core needs to know, and nothing else."""
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


# --- Reading ------------------------------------------------------------------------------------------------

_Tables = dict[str, dict[str, Any]]


class _Mistake(NamedTuple):
    """One thing that is wrong. `got` is already fit to print."""

    where: str
    key: str
    what: str
    got: str
    hint: str

    def __str__(self) -> str:
        got = f" (got {self.got})" if self.got else ""
        return f"{': '.join(filter(None, (self.where, self.key, self.what)))}{got}\n  hint: {self.hint}"


def load(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """Read the file and the environment, and check them.

    Args:
        path: the TOML file, or None for defaults and environment alone.
        environ: all environment variables; those without our prefix are not looked at.

    Raises:
        ConfigError: anything is wrong. Lists every mistake, each as `where: key: what is wrong (got X)` with
            its remedy on the next line. Values of secrets and of unknown keys are never shown.
    """
    mistakes: list[_Mistake] = []
    tables: _Tables = {name: {} for name in sections()}
    origins: dict[str, Origin] = {}
    layers = (
        (Origin("file", str(path)), _from_file(path, mistakes)),
        (Origin("env"), _from_environment(environ, mistakes)),
    )
    for layer, values in layers:
        for section, table in values.items():
            for key, value in table.items():
                tables[section][key] = value
                origins[f"{section}.{key}"] = Origin("env", variable(section, key)) if layer.kind == "env" else layer
    mistakes += _read_secrets(tables, origins)
    settings, wrong = _validate(tables, origins)
    mistakes += wrong
    refused = {mistake.key for mistake in mistakes}
    # A rule between two keys says nothing sensible about one that is wrong in itself.
    mistakes += (
        _blame(c, origins)
        for c in (*_missing_files(settings), *_contradictions(settings))
        if refused.isdisjoint(c.keys)
    )
    if mistakes:
        raise ConfigError("\n".join(dict.fromkeys(map(str, mistakes))))
    settings._origins.update(origins)
    return settings


def _from_file(path: Path | None, mistakes: list[_Mistake]) -> _Tables:
    """The known tables of the file; what does not belong is a mistake and left out."""
    if path is None:
        return {}
    where = str(path)
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except OSError as exc:
        mistakes.append(_Mistake(where, "", f"cannot be read: {exc.strerror}", "", "give the path of a TOML file"))
        return {}
    except (ValueError, RecursionError) as exc:
        # Only the parser's own words are known to hold a place and no value.
        why = exc if isinstance(exc, tomllib.TOMLDecodeError) else _unreadable(exc)
        mistakes.append(_Mistake(where, "", f"not TOML: {why}", "", 'a line reads key = value, with text in "quotes"'))
        return {}
    models = sections()
    tables: _Tables = {}
    for name, table in document.items():
        if name not in models:
            hint = _did_you_mean(name, models, "sections")
            if not isinstance(table, dict):
                hint = "every key belongs in a [section]" if not _sections_with(name) else _belongs(name)
            mistakes.append(_Mistake(where, name, "unknown section", "", hint))
        elif not isinstance(table, dict):
            mistakes.append(
                _Mistake(where, name, "expected a table", _type_name(table), f"write [{name}] above its keys")
            )
        else:
            tables[name] = _known_keys(where, name, table, mistakes)
    return tables


def _known_keys(where: str, section: str, table: dict[str, Any], mistakes: list[_Mistake]) -> dict[str, Any]:
    fields = sections()[section].model_fields
    for key in (key for key in table if key not in fields):
        hint = _did_you_mean(key, fields, f"keys of [{section}]", _sections_with(key))
        mistakes.append(_Mistake(where, f"{section}.{key}", "unknown key", "", hint))
    return {key: value for key, value in table.items() if key in fields}


def _from_environment(environ: Mapping[str, str], mistakes: list[_Mistake]) -> _Tables:
    """The known variables, converted to the types of their keys where they can be."""
    known = {variable(section, key) for section, key, _ in keys()}
    ours = {name: text for name, text in environ.items() if name.upper().startswith(PREFIX)}
    for name in ours:
        if name.upper() not in known | NOT_SETTINGS:
            hint = _did_you_mean(name.upper(), known, "variables")
            if "__" not in name:
                spelled = f"{PREFIX}<SECTION>__<KEY>"
                hint += f" Spell it {spelled}; in Kubernetes set enableServiceLinks: false"
            mistakes.append(_Mistake(name, "", "unknown setting", "", hint))
    source = EnvSettingsSource(Settings)
    source.env_vars = {name.lower(): text for name, text in ours.items() if name.upper() in known}
    tables: _Tables = source()
    for section, key, info in keys():
        text = source.env_vars.get(variable(section, key).lower())
        # The source reads what is no number as JSON, where true is 1. Left as text it is refused.
        if info.annotation in (int, float) and text is not None and text.strip().lower() in ("true", "false"):
            tables[section][key] = text
    return tables


def _read_secrets(tables: _Tables, origins: dict[str, Origin]) -> Iterator[_Mistake]:
    """Fill every secret X from X_file. Where both are set, the environment wins over the file."""
    for section, key, info in keys():
        table, file_key = tables[section], f"{key}_file"
        if info.annotation is not SecretStr or not table.get(file_key):
            continue
        name, file_name = f"{section}.{key}", f"{section}.{file_key}"
        origin, given = origins[file_name], table[file_key]
        if table.get(key):
            if origins[name].kind == origin.kind:
                yield _Mistake(str(origin), name, f"both {key} and {file_key} are set", "", "keep the file")
            if origins[name].kind == "env":
                continue
        if not isinstance(given, str):
            continue  # reported as a wrong type
        try:
            table[key] = SecretStr(Path(given).read_text("utf-8").rstrip("\r\n"))
        except (OSError, ValueError) as exc:
            why = exc.strerror if isinstance(exc, OSError) else _unreadable(exc)
            # Whoever mistakes the key writes the secret itself here.
            shown = repr(given) if "/" in given else "a value that is not shown"
            hint = "give the path of a readable file that holds the secret and nothing else"
            yield _Mistake(str(origin), file_name, f"cannot be read: {why}", shown, hint)
        else:
            origins[name] = origin


def _validate(tables: _Tables, origins: Mapping[str, Origin]) -> tuple[Settings, list[_Mistake]]:
    """The settings, with the default in place of every value that is wrong in itself; and those values."""
    try:
        return Settings.model_validate(tables), []
    except ValidationError as exc:
        errors = exc.errors(include_url=False, include_context=True)
    mistakes = [_translate(error, tables, origins) for error in errors]
    for error in errors:
        section, key = error["loc"][:2]
        tables[str(section)].pop(str(key), None)
    return Settings.model_validate(tables), mistakes


_EXPECTED: Final = {
    "int_type": "expected a whole number",
    "float_type": "expected a number",
    "finite_number": "expected a finite number",
    "bool_type": "expected true or false",
    "string_type": "expected text",
    "string_too_short": "may not be empty",
    "string_too_long": "at most {max_length} characters",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "literal_error": "expected one of {expected}",
}


def _translate(error: ErrorDetails, tables: _Tables, origins: Mapping[str, Origin]) -> _Mistake:
    section, key = (str(part) for part in error["loc"][:2])
    info = sections()[section].model_fields[key]
    value = tables[section][key]
    what = _EXPECTED.get(error["type"], error["msg"]).format(**error.get("ctx", {}))
    got = "a value that is not shown" if info.annotation is SecretStr else _shown(value)
    name = f"{section}.{key}"
    hint = f"{info.description} Default: {_toml(_default(info))}"
    if isinstance(value, str) and error["type"] in ("int_type", "float_type", "bool_type"):
        hint = f"write it as {_toml(_default(info))}, without unit or quotes. {info.description}"
    return _Mistake(str(origins[name]), name, what, got, hint)


def _unreadable(exc: Exception) -> str:
    return "not UTF-8" if isinstance(exc, UnicodeDecodeError) else f"unreadable ({type(exc).__name__})"


def _shown(value: object) -> str:
    text = repr(value) if isinstance(value, str | int | float | bool) else _type_name(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _type_name(value: object) -> str:
    return {"dict": "a table", "list": "a list"}.get(type(value).__name__, type(value).__name__)


def _default(info: FieldInfo) -> Any:
    default = info.default
    return default.get_secret_value() if isinstance(default, SecretStr) else default


def _did_you_mean(name: str, known: Mapping[str, Any] | set[str], what: str, elsewhere: tuple[str, ...] = ()) -> str:
    if elsewhere:
        return f"it belongs in [{elsewhere[0]}]"
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]}?"
    if len(known) > 20:
        return f"no such {what[:-1]}; `run-steps check-config` prints all keys"
    return f"the {what} are {', '.join(known)}"


def _sections_with(key: str) -> tuple[str, ...]:
    return tuple(section for section, model in sections().items() if key in model.model_fields)


def _belongs(key: str) -> str:
    return f"it belongs in [{_sections_with(key)[0]}]"


# --- Rules between keys -------------------------------------------------------------------------------------


class _Contradiction(NamedTuple):
    """Keys that do not go together. The first is named; the mistake is laid at whoever set one of them."""

    keys: tuple[str, ...]
    what: str
    got: str
    hint: str


def _blame(wrong: _Contradiction, origins: Mapping[str, Origin]) -> _Mistake:
    set_by = [origins[key] for key in wrong.keys if key in origins]
    where = str(set_by[0]) if set_by else "default"
    return _Mistake(where, wrong.keys[0], wrong.what, wrong.got, wrong.hint)


_TOPIC_NAME: Final = re.compile(r"(?!\.{1,2}\Z)[a-zA-Z0-9._-]{1,249}")
_SERVER: Final = re.compile(r"(?:\[[0-9a-fA-F:.]+\]|[^\s:,\[\]/@]+):(\d{1,5})")
_FILE_KEYS: Final = ("ssl_ca_file", "ssl_cert_file", "ssl_key_file")


def _missing_files(s: Settings) -> Iterator[_Contradiction]:
    for key in _FILE_KEYS:
        given = getattr(s.kafka, key)
        if given:
            try:
                Path(given).open("rb").close()
            except (OSError, ValueError) as exc:
                why = exc.strerror if isinstance(exc, OSError) else _unreadable(exc)
                hint = "give the path of a readable PEM file"
                yield _Contradiction((f"kafka.{key}",), f"cannot be read: {why}", _shown(given), hint)


def _contradictions(s: Settings) -> Iterator[_Contradiction]:
    yield from _security(s.kafka)
    yield from _topics(s)
    yield from _timing(s)


def _security(k: Kafka) -> Iterator[_Contradiction]:
    for server in k.bootstrap_servers.split(","):
        match = _SERVER.fullmatch(server.strip())
        if not match or not 1 <= int(match[1]) <= 65_535:
            what, hint = (
                "expected host:port",
                "for example broker-1.example.com:9092,broker-2.example.com:9092",
            )
            yield _Contradiction(("kafka.bootstrap_servers",), what, _shown(server.strip()), hint)
    protocol, mechanism = ("kafka.security_protocol",), ("kafka.sasl_mechanism",)
    sasl, tls = k.security_protocol.startswith("SASL"), k.security_protocol.endswith("SSL")
    if sasl and not k.sasl_mechanism:
        hint = "set it to PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER"
        yield _Contradiction(
            mechanism + protocol, f"needed with security_protocol {k.security_protocol}", "nothing", hint
        )
    if k.sasl_mechanism and not sasl:
        hint = "set kafka.security_protocol to SASL_SSL (or SASL_PLAINTEXT), or leave sasl_mechanism empty"
        what = f"does nothing with security_protocol {k.security_protocol}"
        yield _Contradiction(mechanism + protocol, what, k.sasl_mechanism, hint)

    by_password = k.sasl_mechanism == "PLAIN" or k.sasl_mechanism.startswith("SCRAM")
    for key, given in (
        ("sasl_username", k.sasl_username),
        ("sasl_password", k.sasl_password.get_secret_value()),
    ):
        name = (f"kafka.{key}",)
        if by_password and not given:
            hint = f"set {key}" if key == "sasl_username" else "set sasl_password_file to a file that is not empty"
            files = ("kafka.sasl_password_file",) if key == "sasl_password" else ()
            yield _Contradiction(name + mechanism + files, f"needed with {k.sasl_mechanism}", "nothing", hint)
        if given and not by_password:
            hint = "set kafka.sasl_mechanism to PLAIN or SCRAM-SHA-512, or take it out"
            yield _Contradiction(name + mechanism, "used with PLAIN and SCRAM only", "a value that is not shown", hint)

    provider = ("kafka.token_provider",)
    if k.sasl_mechanism == "OAUTHBEARER" and not k.token_provider:
        hint = 'set it to "aws_msk_iam", "azure" or "module:attribute"'
        yield _Contradiction(provider + mechanism, "needed with OAUTHBEARER", "nothing", hint)
    if k.token_provider and k.sasl_mechanism != "OAUTHBEARER":
        hint = "set kafka.sasl_mechanism to OAUTHBEARER, or take it out"
        yield _Contradiction(provider + mechanism, "used with OAUTHBEARER only", repr(k.token_provider), hint)
    known = k.token_provider in ("", "aws_msk_iam", "azure")
    if not known and not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", k.token_provider):
        what = 'expected "aws_msk_iam", "azure" or "module:attribute"'
        hint = "for example my_company.kafka:TokenProvider"
        yield _Contradiction(provider, what, repr(k.token_provider), hint)
    for key, wanted_by in (("aws_region", "aws_msk_iam"), ("azure_scope", "azure")):
        given = getattr(k, key)
        if k.token_provider == wanted_by and not given:
            what = f'needed with token_provider "{wanted_by}"'
            yield _Contradiction((f"kafka.{key}", *provider), what, "nothing", f"set kafka.{key}")

    for key in (*_FILE_KEYS, "ssl_key_password"):
        given = getattr(k, key)
        if (given.get_secret_value() if isinstance(given, SecretStr) else given) and not tls:
            hint = "set kafka.security_protocol to SSL or SASL_SSL, or take it out"
            what = f"does nothing with security_protocol {k.security_protocol}"
            yield _Contradiction((f"kafka.{key}", *protocol), what, "", hint)
    if bool(k.ssl_cert_file) != bool(k.ssl_key_file):
        missing, other = ("ssl_key_file", "ssl_cert_file") if k.ssl_cert_file else ("ssl_cert_file", "ssl_key_file")
        yield _Contradiction(
            (f"kafka.{missing}", f"kafka.{other}"), f"needed with {other}", "nothing", f"set {missing}"
        )


def _topics(s: Settings) -> Iterator[_Contradiction]:
    checkpoints = s.checkpoint_topic
    named = [
        ("source.topic", s.source.topic),
        *((f"output.{status}", topic) for status, topic in s.outcome_topics.items()),
        ("output.dead_letter", s.output.dead_letter),
        ("checkpoints.topic", s.checkpoints.topic),
    ]
    hint = "1 to 249 of the characters a-z A-Z 0-9 . _ -"
    for key, topic in named:
        if topic and not _TOPIC_NAME.fullmatch(topic):
            yield _Contradiction((key,), "not a topic name", _shown(topic), hint)
    if _TOPIC_NAME.fullmatch(s.source.topic) and not s.checkpoints.topic and not _TOPIC_NAME.fullmatch(checkpoints):
        what = "makes no topic name with .checkpoints behind it"
        yield _Contradiction(("source.topic",), what, _shown(s.source.topic), "set checkpoints.topic")
    # Two outcomes may share a topic: the status is in the record. Everything else on a shared topic would be
    # read as what it is not.
    owners = {s.source.topic: "source.topic"}
    owners.setdefault(checkpoints, "checkpoints.topic")
    if checkpoints == s.source.topic:
        hint = "give checkpoints a compacted topic of their own"
        yield _Contradiction(("checkpoints.topic", "source.topic"), "is source.topic too", repr(checkpoints), hint)
    for key, topic in {**s.outcome_topics, "dead_letter": s.output.dead_letter}.items():
        if topic and topic in owners:
            other = owners[topic]
            what, hint = f"is {other} too", "give every output a topic of its own"
            yield _Contradiction((f"output.{key}", other), what, repr(topic), hint)
    for key, topic in s.outcome_topics.items():
        if topic == s.output.dead_letter:
            hint = "give the dead letters a topic of their own"
            yield _Contradiction(("output.dead_letter", f"output.{key}"), f"is output.{key} too", repr(topic), hint)


def _timing(s: Settings) -> Iterator[_Contradiction]:
    source, delivery = s.source, s.delivery
    if source.heartbeat_interval_ms * 3 > source.session_timeout_ms:
        yield _Contradiction(
            ("source.heartbeat_interval_ms", "source.session_timeout_ms"),
            f"must be at most a third of source.session_timeout_ms ({source.session_timeout_ms})",
            str(source.heartbeat_interval_ms),
            "one lost heartbeat must not cost the partitions; 3000 with 30000 is usual",
        )
    if source.rebalance_timeout_ms <= delivery.drain_timeout_s * 1000:
        yield _Contradiction(
            ("source.rebalance_timeout_ms", "delivery.drain_timeout_s"),
            f"must be more than delivery.drain_timeout_s ({delivery.drain_timeout_s:g} s)",
            str(source.rebalance_timeout_ms),
            "a worker that still drains when the rebalance is over is thrown out of the group",
        )
    if source.partition_fetch_bytes > source.fetch_max_bytes:
        yield _Contradiction(
            ("source.partition_fetch_bytes", "source.fetch_max_bytes"),
            f"must be at most source.fetch_max_bytes ({source.fetch_max_bytes})",
            str(source.partition_fetch_bytes),
            "raise fetch_max_bytes with it",
        )
    if delivery.mode == "exactly_once":
        if delivery.commit_interval_ms < 50:
            yield _Contradiction(
                ("delivery.commit_interval_ms", "delivery.mode"),
                "must be at least 50 with mode exactly_once",
                str(delivery.commit_interval_ms),
                "a transaction costs the broker 5 to 11 ms of processor time; 100 is a good value",
            )
        needed_ms = max(delivery.commit_timeout_s * 1000, delivery.commit_interval_ms)
        if delivery.transaction_timeout_ms < needed_ms:
            yield _Contradiction(
                (
                    "delivery.transaction_timeout_ms",
                    "delivery.commit_timeout_s",
                    "delivery.commit_interval_ms",
                ),
                f"must be at least commit_timeout_s and commit_interval_ms ({needed_ms:g} ms)",
                str(delivery.transaction_timeout_ms),
                "or the broker aborts what is still being written; raise it or lower commit_timeout_s",
            )
    if s.output.max_record_bytes > delivery.max_unit_bytes:
        yield _Contradiction(
            ("output.max_record_bytes", "delivery.max_unit_bytes"),
            f"must be at most delivery.max_unit_bytes ({delivery.max_unit_bytes})",
            str(s.output.max_record_bytes),
            "raise max_unit_bytes with it",
        )
    if s.supervisor.backoff_initial_s > s.supervisor.backoff_max_s:
        yield _Contradiction(
            ("supervisor.backoff_initial_s", "supervisor.backoff_max_s"),
            f"must be at most supervisor.backoff_max_s ({s.supervisor.backoff_max_s:g})",
            f"{s.supervisor.backoff_initial_s:g}",
            "raise backoff_max_s with it",
        )


# --- config/processor.toml ----------------------------------------------------------------------------------


def render() -> str:
    """The text of `config/processor.toml`: every key with its default, meaning, bounds or choices."""
    lines = [
        "# Every setting of run-steps with its default. Generated from processor/config.py by `make config`.",
        "# Keep what you change and drop the rest: what is not in the file has its default.",
        f"# Every key can also come as {PREFIX}<SECTION>__<KEY> from the environment, which wins.",
        "# Names carry their units (_ms, _s, _bytes, _records). An empty text means: not set.",
        "# `run-steps check-config --config FILE` says what is wrong, and what is in force.",
    ]
    for section, model in sections().items():
        lines += ["", f"# {(model.__doc__ or '').strip()}", f"[{section}]"]
        for key, info in model.model_fields.items():
            bounds = _bounds(info)
            lines.append(f"# {info.description}{f' {bounds}.' if bounds else ''}")
            lines.append(f"{key} = {_toml(_default(info))}")
    return "\n".join(lines) + "\n"


def _bounds(info: FieldInfo) -> str:
    choices = [repr(choice) for choice in get_args(info.annotation)]
    if choices:
        return "One of " + ", ".join(c.replace("'", '"') for c in choices)
    limits = {name: getattr(rule, name) for rule in info.metadata for name in ("ge", "gt", "le") if hasattr(rule, name)}
    if not limits:
        return ""
    low = f"{limits['ge']:g} to" if "ge" in limits and limits["ge"] < 10**5 else f"{limits.get('ge', '')} to"
    if "gt" in limits:
        low = f"More than {limits['gt']} to"
    return f"{low} {limits['le']}"


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


if __name__ == "__main__":
    sys.stdout.write(render())
