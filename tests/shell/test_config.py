"""Settings: what is read, what wins, and that every mistake is named at once without telling a secret."""

from __future__ import annotations

import pickle
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from processor.config.loading import load
from processor.config.settings import NOT_SETTINGS, Settings, keys, variable
from processor.config.toml import render
from processor.errors import ConfigError

ROOT = Path(__file__).parents[2]

SASL = """
[kafka]
security_protocol = "SASL_SSL"
sasl_mechanism = "SCRAM-SHA-512"
sasl_username = "app"
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "processor.toml"
    path.write_text(text)
    return path


def refusal(path: Path | None, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, environ)
    assert caught.value.exit_code == 78
    return str(caught.value)


def mistakes(text: str) -> list[str]:
    """The lines that name a mistake; every one must be followed by its remedy."""
    lines = text.splitlines()
    assert all(line.startswith("  hint: ") and len(line) > 12 for line in lines[1::2]), text
    return lines[::2]


def test_without_file_and_environment_all_is_default() -> None:
    """The defaults are themselves without contradiction."""
    settings = load(None, {"PATH": "/bin"})
    assert settings.model_dump() == Settings().model_dump()
    assert {entry.origin.kind for entry in settings.effective()} == {"default"}
    assert settings.checkpoint_topic == "run-step-events.checkpoints"
    assert settings.transactional_id_prefix == "run-steps"


def test_the_committed_file_is_the_generated_one_and_says_the_defaults() -> None:
    """`make config` keeps config/processor.toml equal to the model."""
    path = ROOT / "config" / "processor.toml"
    assert path.read_text() == render(), "run `make config`"
    assert load(path, {}).model_dump() == Settings().model_dump()
    assert {(s, k) for s, t in tomllib.loads(render()).items() for k in t} == {(s, k) for s, k, _ in keys()}


def test_every_key_has_a_meaning_of_one_line() -> None:
    """An operator reads the file, not the code."""
    for section, key, info in keys():
        assert info.description, f"{section}.{key}"
        assert info.description.endswith("."), f"{section}.{key}"
        assert "\n" not in info.description


def test_the_environment_wins_over_the_file_and_origins_are_known(tmp_path: Path) -> None:
    """Default, file, environment, in rising order."""
    path = write(tmp_path, '[source]\ntopic = "a"\ngroup_id = "g"\n[http]\nport = 1\n')
    settings = load(path, {"RUN_STEPS_SOURCE__TOPIC": "b", "run_steps_http__enabled": "false"})
    assert (settings.source.topic, settings.source.group_id, settings.http.port) == ("b", "g", 1)
    assert settings.http.enabled is False
    origins = {(e.section, e.key): e.origin for e in settings.effective()}
    assert origins["source", "topic"] == ("env", "RUN_STEPS_SOURCE__TOPIC")
    assert origins["source", "group_id"] == ("file", str(path))
    assert origins["source", "start"].kind == "default"


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("http__port", "0", 0),
        ("rejections__max_share", "0", 0.0),
        ("http__enabled", "off", False),
        ("source__group_id", "123", "123"),
        ("kafka__client_id", '{"a": 1}', '{"a": 1}'),
        ("kafka__sasl_username", "true", None),
    ],
)
def test_variables_are_text_and_become_what_the_key_is(key: str, text: str, value: Any) -> None:
    """A number in a text key stays text; nothing is taken for JSON."""
    section, name = key.split("__")
    if value is None:
        assert "PLAIN and SCRAM only" in refusal(None, **{variable(section, name): text})
        return
    found = getattr(getattr(load(None, {variable(section, name): text}), section), name)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "text", ["true", "False", " true ", "", "0x10", "[1]", "1 000", "\udcff", "9" * 5000, "[" * 100_000]
)
def test_what_is_no_number_is_refused(text: str) -> None:
    """Nothing becomes a number by a detour: `true` is 1 to JSON and to Python."""
    assert "http.port: expected a whole number" in refusal(None, RUN_STEPS_HTTP__PORT=text)


def test_every_mistake_is_named_at_once(tmp_path: Path) -> None:
    """One run, all mistakes, each with where, key, what, value and remedy."""
    path = write(
        tmp_path,
        """
[sorce]
topic = "x"
[source]
toppic = "x"
heartbeat_interval_ms = "3 s"
port = 1
[http]
port = 70000
[kafka]
bootstrap_servers = "broker"
ssl_ca_file = "/nowhere/ca.pem"
[output]
completed = "run-step-events"
[steps]
grace_s = -1
max_age_s = 1.5
max_open_steps = true
[supervisor]
stall_timeout_s = inf
""",
    )
    text = refusal(
        path,
        RUN_STEPS_LOG__LEVEL="loud",
        RUN_STEPS_LOGG__LEVEL="info",
        RUN_STEPS_SOURCE_TOPIC="t",
        RUN_STEPS_DELIVERY__COMMIT_INTERVAL_MS="20",
    )
    found = mistakes(text)
    for wanted in [
        f"{path}: sorce: unknown section",
        f"{path}: source.toppic: unknown key",
        f"{path}: source.port: unknown key",
        f"{path}: source.heartbeat_interval_ms: expected a whole number (got '3 s')",
        f"{path}: http.port: must be at most 65535 (got 70000)",
        f"{path}: kafka.bootstrap_servers: expected host:port (got 'broker')",
        f"{path}: kafka.ssl_ca_file: cannot be read: No such file or directory (got '/nowhere/ca.pem')",
        f"{path}: kafka.ssl_ca_file: does nothing with security_protocol PLAINTEXT",
        f"{path}: output.completed: is source.topic too (got 'run-step-events')",
        f"{path}: steps.grace_s: must be at least 0 (got -1)",
        f"{path}: steps.max_age_s: expected a whole number (got 1.5)",
        f"{path}: steps.max_open_steps: expected a whole number (got True)",
        f"{path}: supervisor.stall_timeout_s: expected a finite number (got inf)",
        "RUN_STEPS_LOG__LEVEL: log.level: expected one of 'debug', 'info', 'warning' or 'error' (got 'loud')",
        "RUN_STEPS_LOGG__LEVEL: unknown setting",
        "RUN_STEPS_SOURCE_TOPIC: unknown setting",
        "RUN_STEPS_DELIVERY__COMMIT_INTERVAL_MS: delivery.commit_interval_ms: "
        "must be at least 50 with mode exactly_once (got 20)",
    ]:
        assert wanted in found, f"{wanted}\nnot in\n{text}"
        found.remove(wanted)
    assert found == []
    for remedy in (
        "did you mean source?",
        "did you mean topic?",
        "it belongs in [http]",
        "did you mean RUN_STEPS_LOG__LEVEL?",
        "did you mean RUN_STEPS_SOURCE__TOPIC?",
    ):
        assert remedy in text


@pytest.mark.parametrize(
    ("toml", "wanted"),
    [
        ("[source]\nheartbeat_interval_ms = 10001", "source.heartbeat_interval_ms: must be at most a third"),
        ("[source]\nrebalance_timeout_ms = 20000", "source.rebalance_timeout_ms: must be more than delivery.drain"),
        ("[source]\npartition_fetch_bytes = 5000000", "source.partition_fetch_bytes: must be at most"),
        ("[delivery]\ntransaction_timeout_ms = 14000", "delivery.transaction_timeout_ms: must be at least"),
        ("[delivery]\nmax_unit_bytes = 99999", "output.max_record_bytes: must be at most delivery.max_unit_bytes"),
        ("[supervisor]\nbackoff_initial_s = 31", "supervisor.backoff_initial_s: must be at most"),
        ('[output]\nexpired = "run-step-events.checkpoints"', "output.expired: is checkpoints.topic too"),
        ('[output]\nfailed = "run-steps.dead-letter"', "output.dead_letter: is output.failed too"),
        ('[output]\ndead_letter = "run-step-events"', "output.dead_letter: is source.topic too"),
        ('[output]\ndead_letter = ""', "output.dead_letter: may not be empty"),
        ('[output]\nexpired = ""', "output.expired: may not be empty"),
        ('[output]\nfailed = "a b"', "output.failed: not a topic name (got 'a b')"),
        ('[source]\ntopic = ".."', "source.topic: not a topic name"),
        ('[checkpoints]\ntopic = "run-step-events"', "checkpoints.topic: is source.topic too"),
        (f'[source]\ntopic = "{"t" * 249}"', "source.topic: makes no topic name with .checkpoints"),
        ('[kafka]\nsasl_mechanism = "PLAIN"', "kafka.sasl_mechanism: does nothing with security_protocol PLAINTEXT"),
        ('[kafka]\nsecurity_protocol = "SASL_SSL"', "kafka.sasl_mechanism: needed with security_protocol SASL_SSL"),
        (SASL, "kafka.sasl_password: needed with SCRAM-SHA-512 (got nothing)"),
        (SASL.replace('"app"', '""'), "kafka.sasl_username: needed with SCRAM-SHA-512 (got nothing)"),
        (SASL.replace("SCRAM-SHA-512", "OAUTHBEARER"), "kafka.token_provider: needed with OAUTHBEARER"),
        ('[kafka]\ntoken_provider = "azure"', "kafka.azure_scope: needed with token_provider"),
        ('[kafka]\ntoken_provider = "aws_msk_iam"', "kafka.aws_region: needed with token_provider"),
        ('[kafka]\naws_region = "eu-west-1"', 'kafka.aws_region: used with token_provider "aws_msk_iam" only'),
        ('[kafka]\nazure_scope = "s"', "kafka.azure_scope: used with token_provider \"azure\" only (got 's')"),
        (
            '[kafka]\nsecurity_protocol = "SSL"\nssl_key_password = "x"',
            "kafka.ssl_key_password: does nothing without ssl_key_file",
        ),
        ("[http]\nenabled = false\ncontrol = true", "http.control: does nothing with http.enabled = false"),
        ('[kafka]\ntoken_provider = "a.b"', 'kafka.token_provider: expected "aws_msk_iam", "azure" or'),
        ('[kafka]\nbootstrap_servers = "a..b:1"', "kafka.bootstrap_servers: expected host:port (got 'a..b:1')"),
        (f'[kafka]\nbootstrap_servers = "{"a" * 64}:1"', "kafka.bootstrap_servers: expected host:port (got 'aaa"),
        ('[output]\ncloudevents_source = "a b"', "output.cloudevents_source: expected a URI reference"),
        ('[kafka]\nbootstrap_servers = "a:1,b:0"', "kafka.bootstrap_servers: expected host:port (got 'b:0')"),
        ('[kafka]\nbootstrap_servers = "b:\u0661"', "kafka.bootstrap_servers: expected host:port (got 'b:\u0661')"),
        ("kafka = 1", "kafka: expected a table (got int)"),
        ("port = 1", "port: unknown section"),
        ("[http", "not TOML"),
        (f"kafka = {'[' * 5000}", "not TOML"),
        (f"[http]\nport = {'9' * 5000}", "not TOML"),
        ('[kafka]\nsasl_password_file = "/\\u0000"', "kafka.sasl_password_file: cannot be read: unreadable"),
        ('[kafka]\nssl_ca_file = "\\u0000"', "kafka.ssl_ca_file: holds a control character"),
        ('[checkpoints]\ntopic = "a b"', "checkpoints.topic: not a topic name (got 'a b')"),
        ('[tracing]\nendpoint = "otel:4317"', "tracing.endpoint: expected an http or https address (got 'otel:4317')"),
        ('[tracing]\nendpoint = "http://h:1x/v1"', "tracing.endpoint: expected an http or https address"),
        (
            '[tracing]\nendpoint = "https://u:hunter2@h/v1"',
            "tracing.endpoint: must hold no user and no password (got a",
        ),
        ("[tracing]\nsample_share = 0", "tracing.sample_share: must be more than 0"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path: Path, toml: str, wanted: str) -> None:
    """Rules between keys, each named by the key to change."""
    path = write(tmp_path, toml)
    text = refusal(path)
    assert any(line.startswith(f"{path}: {wanted}") for line in mistakes(text)), text


@pytest.mark.parametrize(
    "toml",
    [
        '[output]\ncompleted = ""\nfailed = ""',
        '[output]\ncompleted = "ended"\nfailed = "ended"',
        '[delivery]\nmode = "at_least_once"\ncommit_interval_ms = 5\ntransaction_timeout_ms = 1000',
        '[kafka]\nbootstrap_servers = "a.example:9092, [::1]:9093"',
        "[supervisor]\nstall_timeout_s = 5",
        "[source]\nfetch_max_bytes = 1048576",
        '[tracing]\nenabled = true\nendpoint = "https://[::1]:4318/v1/traces"',
    ],
)
def test_what_can_work_is_accepted(tmp_path: Path, toml: str) -> None:
    """Refusing too much is a fault as well."""
    load(write(tmp_path, toml), {})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """Not a traceback, and not the defaults in silence."""
    assert "cannot be read: No such file or directory" in refusal(tmp_path / "none.toml")
    assert "cannot be read: Is a directory" in refusal(tmp_path)
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    assert "not TOML: not UTF-8" in refusal(binary)


# --- secrets


def test_secrets_come_from_files_and_the_environment_wins(tmp_path: Path) -> None:
    """X_file is read once, without its closing line feed."""
    secret = tmp_path / "password"
    secret.write_text("from the file\n")
    path = write(tmp_path, SASL + f'sasl_password_file = "{secret}"')
    settings = load(path, {})
    assert settings.kafka.sasl_password.get_secret_value() == "from the file"
    settings = load(path, {"RUN_STEPS_KAFKA__SASL_PASSWORD": "from the environment"})
    assert settings.kafka.sasl_password.get_secret_value() == "from the environment"
    settings = load(write(tmp_path, SASL + 'sasl_password = "x"'), {"RUN_STEPS_KAFKA__SASL_PASSWORD_FILE": str(secret)})
    assert settings.kafka.sasl_password.get_secret_value() == "from the file"
    assert settings.origin("kafka", "sasl_password").name == "RUN_STEPS_KAFKA__SASL_PASSWORD_FILE"


def test_secrets_are_told_to_nobody(tmp_path: Path) -> None:
    """Not by repr, not by what is printed, not by any mistake, misspelt keys included."""
    secret = tmp_path / "password"
    secret.write_text("hunter2")
    settings = load(write(tmp_path, SASL + f'sasl_password_file = "{secret}"'), {})
    shown = repr(settings) + str(settings) + str(list(settings.effective()))
    assert "hunter2" not in shown
    assert "(set)" in shown
    path = write(
        tmp_path,
        '[kafka]\nsasl_pasword = "hunter2"\nsasl_password = ["hunter2"]\nsasl_password_file = "hunter2"\n'
        'ssl_key_password = "hunter2"\nssl_key_password_file = "hunter2"\n[hunter]\npassword = "hunter2"\n',
    )
    text = refusal(path, RUN_STEPS_KAFKA__SASL_PASWORD="hunter2", RUN_STEPS_PASSWORD="hunter2")
    assert len(mistakes(text)) >= 8
    assert "hunter2" not in text
    assert "31337" not in refusal(write(tmp_path, "[kafka]\nsasl_password = 31337\n"))


def test_an_empty_secret_file_is_no_password(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("\n")
    text = refusal(write(tmp_path, SASL + f'sasl_password_file = "{secret}"'))
    assert "kafka.sasl_password: needed with SCRAM-SHA-512" in text


# --- what others rely on


def test_settings_are_frozen_and_travel_to_worker_processes(tmp_path: Path) -> None:
    """`serve --workers N` hands them to other processes, origins and secrets included."""
    secret = tmp_path / "password"
    secret.write_text("hunter2")
    settings = load(write(tmp_path, SASL + f'sasl_password_file = "{secret}"'), {})
    with pytest.raises(ValidationError):
        settings.http.port = 1
    copy = pickle.loads(pickle.dumps(settings))
    assert copy == settings
    assert copy.kafka.sasl_password == SecretStr("hunter2")


def test_nothing_but_load_reads_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test's settings do not depend on who runs it."""
    monkeypatch.setenv("RUN_STEPS_SOURCE__TOPIC", "other")
    monkeypatch.setenv("SOURCE", '{"topic": "other"}')
    assert Settings().source.topic == "run-step-events"
    assert load(None, {}).source.topic == "run-step-events"


def test_the_rules_are_the_settings(tmp_path: Path) -> None:
    """Every field of the core's rules comes from the key of its name, and the defaults are the same."""
    from processor.core.rules import Rules

    assert Settings().rules() == Rules()
    changed = load(
        write(
            tmp_path,
            "[steps]\ngrace_s = 1\nmax_age_s = 2\nended_retention_s = 3\nended_retention_records = 4\n"
            "max_step_bytes = 5000\nmax_open_steps = 6\n"
            '[output]\nmax_record_bytes = 7000\nobject_type = "o"\n'
            'cloudevents_source = "//kafka.example.com/steps"\n'
            '[source]\nunknown_events = "dead-letter"\nschema_frames = true\n',
        ),
        {},
    ).rules()
    assert changed == Rules(
        grace_s=1,
        max_age_s=2,
        ended_retention_s=3,
        ended_retention_records=4,
        max_step_bytes=5000,
        max_open_steps=6,
        max_record_bytes=7000,
        unknown_events="dead-letter",
        object_type="o",
        schema_frames=True,
        cloudevents_source="//kafka.example.com/steps",
    )


def test_other_variables_of_ours_are_no_mistakes() -> None:
    """What other parts read under our prefix is known here, or setting it would stop the worker."""
    load(None, dict.fromkeys(NOT_SETTINGS, "x"))
    known = NOT_SETTINGS | {variable(section, key) for section, key, _ in keys()}
    for file in (ROOT / "processor").rglob("*.py"):
        for name in re.findall(r"\"(RUN_STEPS_[A-Z_]*[A-Z])\"", file.read_text()):
            assert name in known, f"{file.relative_to(ROOT)} reads {name}"


def test_a_variable_in_two_spellings_is_refused() -> None:
    """Variables are read in any case; which of two counted was their order in the environment."""
    text = refusal(None, RUN_STEPS_SOURCE__TOPIC="a", run_steps_source__topic="b", Run_Steps_Http__Port="1")
    assert mistakes(text) == ["RUN_STEPS_SOURCE__TOPIC, run_steps_source__topic: source.topic: set twice"]
    assert load(None, {"Run_Steps_Http__Port": "1"}).http.port == 1


def test_what_is_no_setting_is_read_in_one_spelling() -> None:
    """`run_steps_config` was passed over in silence, and the defaults were in force."""
    assert mistakes(refusal(None, run_steps_config="x.toml")) == ["run_steps_config: unknown setting"]
    assert "spell it RUN_STEPS_CONFIG" in refusal(None, run_steps_config="x.toml")


@pytest.mark.parametrize("key", ["kafka.client_id", "kafka.sasl_username", "source.group_id", "output.object_type"])
@pytest.mark.parametrize("text", ["a\n", "a\0b", "\x1b[1m", "\udcff"])
def test_a_text_with_a_control_character_is_refused(key: str, text: str) -> None:
    """A line end from a Secret named another group; a byte that is no UTF-8 broke the first snapshot."""
    name = variable(*key.split("."))
    (found,) = (line for line in mistakes(refusal(None, **{name: text})) if line.startswith(name))
    assert found.startswith(f"{name}: {key}: holds a control character, or is not UTF-8 (got ")


@pytest.mark.parametrize("secret", ["hunter2\n", "hunter2\nhunter3", "hunter2\udcff"])
def test_a_secret_with_a_control_character_is_refused(tmp_path: Path, secret: str) -> None:
    """A broker refused it as a wrong password, or the client could not even write it."""
    path = write(tmp_path, SASL)
    text = refusal(path, RUN_STEPS_KAFKA__SASL_PASSWORD=secret)
    assert mistakes(text)[0].startswith(
        "RUN_STEPS_KAFKA__SASL_PASSWORD: kafka.sasl_password: holds a control character"
    )
    assert "hunter" not in text
    file = tmp_path / "secret"
    file.write_bytes(b"hunter2\nhunter3\n")
    text = refusal(path, RUN_STEPS_KAFKA__SASL_PASSWORD_FILE=str(file))
    assert mistakes(text)[0].startswith("RUN_STEPS_KAFKA__SASL_PASSWORD_FILE: kafka.sasl_password: holds a control")


@pytest.mark.parametrize("name", ["plain", "tls-scram"])
def test_the_examples_load(name: str, tmp_path: Path) -> None:
    """Each example is right as it stands, given its secrets."""
    path = ROOT / "config" / f"{name}.toml"
    environ = {}
    for key, value in tomllib.loads(path.read_text())["kafka"].items():
        if key.endswith("_file"):
            assert value.startswith("/run/secrets/")
            assert f"kafka.{key}: cannot be read" in refusal(path)
            file = tmp_path / key
            file.write_text("x")
            environ[variable("kafka", key)] = str(file)
    assert load(path, environ).source.topic == "run-step-events"


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path) -> None:
    """Editors of Windows write one; a password that began with it was refused by the broker alone."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"\xef\xbb\xbfhunter2\r\n")
    path = tmp_path / "processor.toml"
    path.write_bytes(b"\xef\xbb\xbf" + (SASL + f'sasl_password_file = "{secret}"').encode())
    assert load(path, {}).kafka.sasl_password.get_secret_value() == "hunter2"
