"""Read the settings from a TOML file and the environment, and check them."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import EnvSettingsSource

from processor.config.consistency import contradictions, missing_files, mistake_of
from processor.config.mistakes import Mistake, shown, type_name, unreadable
from processor.config.settings import NOT_SETTINGS, PREFIX, Origin, Settings, default_of, keys, sections, variable
from processor.config.toml import toml_value
from processor.errors import ConfigError

_Tables = dict[str, dict[str, Any]]


def load(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """Read the file and the environment, and check them.

    Args:
        path: the TOML file, or None for defaults and environment alone.
        environ: all environment variables; those without our prefix are not looked at.

    Raises:
        ConfigError: anything is wrong. Lists every mistake, each as `where: key: what is wrong (got X)` with
            its remedy on the next line. Values of secrets and of unknown keys are never shown.
    """
    mistakes: list[Mistake] = []
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
        mistake_of(c, origins)
        for c in (*missing_files(settings), *contradictions(settings))
        if refused.isdisjoint(c.keys)
    )
    if mistakes:
        raise ConfigError("\n".join(dict.fromkeys(map(str, mistakes))))
    settings._origins.update(origins)
    return settings


def _from_file(path: Path | None, mistakes: list[Mistake]) -> _Tables:
    """The known tables of the file; what does not belong is a mistake and left out."""
    if path is None:
        return {}
    where = str(path)
    try:
        document = tomllib.loads(path.read_text("utf-8-sig"))
    except OSError as exc:
        mistakes.append(Mistake(where, "", f"cannot be read: {exc.strerror}", "", "give the path of a TOML file"))
        return {}
    except (ValueError, RecursionError) as exc:
        # Only the parser's own words are known to hold a place and no value.
        why = exc if isinstance(exc, tomllib.TOMLDecodeError) else unreadable(exc)
        mistakes.append(Mistake(where, "", f"not TOML: {why}", "", 'a line reads key = value, with text in "quotes"'))
        return {}
    models = sections()
    tables: _Tables = {}
    for name, table in document.items():
        if name not in models:
            hint = _did_you_mean(name, models, "sections")
            if not isinstance(table, dict):
                hint = "every key belongs in a [section]" if not _sections_with(name) else _belongs(name)
            mistakes.append(Mistake(where, name, "unknown section", "", hint))
        elif not isinstance(table, dict):
            mistakes.append(
                Mistake(where, name, "expected a table", type_name(table), f"write [{name}] above its keys")
            )
        else:
            tables[name] = _known_keys(where, name, table, mistakes)
    return tables


def _known_keys(where: str, section: str, table: dict[str, Any], mistakes: list[Mistake]) -> dict[str, Any]:
    fields = sections()[section].model_fields
    for key in (key for key in table if key not in fields):
        hint = _did_you_mean(key, fields, f"keys of [{section}]", _sections_with(key))
        mistakes.append(Mistake(where, f"{section}.{key}", "unknown key", "", hint))
    return {key: value for key, value in table.items() if key in fields}


def _from_environment(environ: Mapping[str, str], mistakes: list[Mistake]) -> _Tables:
    """The known variables, converted to the types of their keys where they can be."""
    known = {variable(section, key) for section, key, _ in keys()}
    ours = {
        name: text for name, text in environ.items() if name.upper().startswith(PREFIX) and name not in NOT_SETTINGS
    }
    for name in ours:
        if name.upper() in NOT_SETTINGS:
            mistakes.append(Mistake(name, "", "unknown setting", "", f"spell it {name.upper()}"))
        elif name.upper() not in known:
            hint = _did_you_mean(name.upper(), known, "variables")
            if "__" not in name:
                spelled = f"{PREFIX}<SECTION>__<KEY>"
                hint += f" Spell it {spelled}; in Kubernetes set enableServiceLinks: false"
            mistakes.append(Mistake(name, "", "unknown setting", "", hint))
    for section, key, _ in keys():
        # Variables are known in any case of their letters. Of two, the order in the environment would decide.
        spelled_so = [name for name in ours if name.upper() == variable(section, key)]
        if len(spelled_so) > 1:
            hint = f"keep {variable(section, key)} alone"
            mistakes.append(Mistake(", ".join(sorted(spelled_so)), f"{section}.{key}", "set twice", "", hint))
    given = {name.lower(): text for name, text in ours.items() if name.upper() in known}
    source = EnvSettingsSource(Settings)
    source.env_vars = {name: text for name, text in given.items() if not _breaks_json(text)}
    tables: _Tables = source()
    for section, key, info in keys():
        text = given.get(variable(section, key).lower())
        if text is None:
            continue
        # The source reads what is no number as JSON, where true is 1. Left as text it is refused.
        is_no_number = info.annotation in (int, float) and text.strip().lower() in ("true", "false")
        if is_no_number or _breaks_json(text):
            tables.setdefault(section, {})[key] = text
    return tables


def _breaks_json(text: str) -> bool:
    """Whether a JSON parser ends otherwise than with a value or a syntax error: too many digits, or too deep."""
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return False
    except (ValueError, RecursionError):
        return True
    return False


def _read_secrets(tables: _Tables, origins: dict[str, Origin]) -> Iterator[Mistake]:
    """Fill every secret X from X_file. Where both are set, the environment wins over the file."""
    for section, key, info in keys():
        table, file_key = tables[section], f"{key}_file"
        if info.annotation is not SecretStr or not table.get(file_key):
            continue
        name, file_name = f"{section}.{key}", f"{section}.{file_key}"
        origin, given = origins[file_name], table[file_key]
        if table.get(key):
            if origins[name].kind == origin.kind:
                yield Mistake(str(origin), name, f"both {key} and {file_key} are set", "", "keep the file")
            if origins[name].kind == "env":
                continue
        if not isinstance(given, str):
            continue  # reported as a wrong type
        try:
            table[key] = SecretStr(Path(given).read_text("utf-8-sig").rstrip("\r\n"))
        except (OSError, ValueError) as exc:
            why = exc.strerror if isinstance(exc, OSError) else unreadable(exc)
            # A common mistake: the secret itself in place of its file.
            shown = repr(given) if "/" in given else "a value that is not shown"
            hint = "give the path of a readable file that holds the secret and nothing else"
            yield Mistake(str(origin), file_name, f"cannot be read: {why}", shown, hint)
        else:
            origins[name] = origin


def _validate(tables: _Tables, origins: Mapping[str, Origin]) -> tuple[Settings, list[Mistake]]:
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
    "string_unicode": "holds a control character, or is not UTF-8",
    "string_too_short": "may not be empty",
    "string_too_long": "at most {max_length} characters",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "literal_error": "expected one of {expected}",
    "string_pattern_mismatch": "expected a URI reference: ASCII without spaces, quotes and <>\\^`{{|}}",
}


def _translate(error: ErrorDetails, tables: _Tables, origins: Mapping[str, Origin]) -> Mistake:
    section, key = (str(part) for part in error["loc"][:2])
    info = sections()[section].model_fields[key]
    value = tables[section][key]
    what = _EXPECTED.get(error["type"], error["msg"]).format(**error.get("ctx", {}))
    got = "a value that is not shown" if info.annotation is SecretStr else shown(value)
    name = f"{section}.{key}"
    hint = f"{info.description} Default: {toml_value(default_of(info))}"
    if error["type"] in ("control_character", "string_unicode"):
        hint = "one line of text: a value from a file or a Secret often ends with a line end"
    elif isinstance(value, str) and error["type"] in ("int_type", "float_type", "bool_type"):
        hint = f"write it as {toml_value(default_of(info))}, without unit or quotes. {info.description}"
    return Mistake(str(origins[name]), name, what, got, hint)


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
