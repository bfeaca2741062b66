"""As much of JSON Schema as docs/worklist.schema.json uses; an unknown keyword is an error, so nothing is unchecked."""

TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
STRUCTURE = {"$defs", "$ref", "type", "properties", "additionalProperties", "items", "required"}
SILENT = STRUCTURE | {"$schema", "title", "description"}


def _is(value, name):
    if name in ("number", "integer"):
        return isinstance(value, int if name == "integer" else int | float) and not isinstance(value, bool)
    return isinstance(value, TYPES[name])


def _other(value):
    return not isinstance(value, int | float)


RULES = {
    "enum": lambda value, wanted: value in wanted,
    "const": lambda value, wanted: value == wanted,
    "minimum": lambda value, wanted: _other(value) or value >= wanted,
    "maximum": lambda value, wanted: _other(value) or value <= wanted,
    "exclusiveMinimum": lambda value, wanted: _other(value) or value > wanted,
    "maxLength": lambda value, wanted: len(value) <= wanted,
}


def faults(value, schema, root, place="$"):
    """Yields what of a document does not follow the schema."""
    kinds = schema.get("type", [])
    if kinds and not any(_is(value, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds)):
        yield f"{place}: not {kinds}"
        return
    for keyword, wanted in schema.items():
        if keyword not in SILENT and not RULES[keyword](value, wanted):
            yield f"{place}: {keyword} {wanted}"
    for part, inner, name in _parts(value, schema, root):
        yield from faults(part, inner, root, place + name) if inner else [f"{place}{name} is unknown"]
    yield from (f"{place}: lacks {name}" for name in schema.get("required", []) if name not in value)


def _parts(value, schema, root):
    if "$ref" in schema:
        yield value, root["$defs"][schema["$ref"].removeprefix("#/$defs/")], ""
    if "items" in schema:
        yield from ((item, schema["items"], f"[{index}]") for index, item in enumerate(value))
    if schema.get("type") == "object":
        known = schema.get("properties", {})
        yield from ((part, known.get(name, schema["additionalProperties"]), f".{name}") for name, part in value.items())
