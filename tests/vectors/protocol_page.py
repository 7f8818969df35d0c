"""Decodes what nodes say with nothing but docs/protocol.md.

    python3 tests/vectors/protocol_page.py docs/protocol.md tests/vectors/wire < messages

The tables of the page are the grammar. The program decodes its example and every frozen object,
checks their ids and signatures, and then each line of its input: a type of the page and bytes in
hex. Bytes that the page leaves over, or a row of its choices that nothing has met, end it.
"""

import importlib.util
import re
import sys
from hashlib import sha256
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
MAGIC = bytes.fromhex("cafe0005")
NUMBERS = {"u8": 1, "u16": 2, "u32": 4, "u64": 8, "i32": 4}


class Wrong(Exception):
    """Bytes that are not what the page says."""


def verifier():
    """The one that checks certificates: its curve is its own."""
    spec = importlib.util.spec_from_file_location("verifier", SCRIPTS / "verify_certificate.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["verifier"] = module
    spec.loader.exec_module(module)
    return module


class Page:
    """Structures, objects and choices by name."""

    def __init__(self, text):
        self.structures, self.choices, self.objects = {}, {}, set()
        self.met = set()
        table = None
        for line in text.splitlines():
            cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
            if not line.startswith("|"):
                table = None
            elif table is None:
                table = cells[0]
            elif set(cells[0]) <= set("-"):
                continue
            elif table in ("structure", "object"):
                name = cells[0].strip("`")
                self.structures[name] = fields(cells[-1])
                if table == "object":
                    self.objects.add(name)
            elif table == "choice":
                name, number, chosen, inner = cells
                rows = self.choices.setdefault(name.strip("`"), {})
                assert int(number) == len(rows), f"{line}: numbers begin at 0 and leave none out"
                rows[int(number)] = chosen, fields(inner)

    def unmet(self):
        rows = {(name, number) for name, rows in self.choices.items() for number in rows}
        return [f"{name} {self.choices[name][number][0]}" for name, number in sorted(rows - self.met)]


def fields(cell):
    """Pairs of name and type."""
    parts = re.split(r", (?![^(]*\))", cell) if cell else []
    return [tuple(part.split(" ", 1)) for part in parts]


class Reader:
    """Bytes, read from front to back."""

    def __init__(self, page, data):
        self.page, self.data, self.at = page, data, 0

    def take(self, count):
        if count > len(self.data) - self.at:
            raise Wrong(f"{count} bytes wanted at {self.at} of {len(self.data)}")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, count):
        return int.from_bytes(self.take(count), "big")

    def value(self, kind):
        if kind in NUMBERS:
            return self.number(NUMBERS[kind])
        if kind == "bool":
            return self.tag(1) == 1
        if kind.endswith("?"):
            return self.value(kind[:-1]) if self.tag(1) else None
        if kind.startswith("["):
            return [self.value(kind[1:-1]) for _ in range(self.number(8))]
        if kind.startswith("("):
            return tuple(self.value(one) for one in kind[1:-1].split(", "))
        if re.fullmatch("b[0-9]+", kind):
            return self.take(int(kind[1:]))
        if kind in ("bytes", "text"):
            data = self.take(self.number(8))
            return data if kind == "bytes" else data.decode()
        if kind in self.page.structures:
            return {name: self.value(one) for name, one in self.page.structures[kind]}
        return self.choice(kind)

    def tag(self, most):
        tag = self.number(1)
        if tag > most:
            raise Wrong(f"{tag} at {self.at - 1} is none of 0 to {most}")
        return tag

    def choice(self, kind):
        number = self.number(4)
        if number not in self.page.choices[kind]:
            raise Wrong(f"{kind} has no {number}")
        self.page.met.add((kind, number))
        name, inner = self.page.choices[kind][number]
        return {"choice": name, **{field: self.value(one) for field, one in inner}}


def decode(page, kind, data):
    reader = Reader(page, data)
    value = reader.value(kind)
    if reader.at != len(data):
        raise Wrong(f"{len(data) - reader.at} bytes are left over")
    return value


def check_object(page, kind, case, is_signed):
    """An object of a frozen file, or of the page."""
    payload = bytes.fromhex(case["payload"])
    value = decode(page, kind, payload)
    message = f"capex/{kind}/v{value['v']}\0".encode() + MAGIC + payload
    if sha256(message).hexdigest() != case["id"]:
        raise Wrong("its id is another")
    key, signature = bytes.fromhex(case["key"]), bytes.fromhex(case["signature"])
    if not is_signed(key, message, signature):
        raise Wrong("its signature is not good")


def cases(text):
    """The cases of a frozen file: words of one kind are put together."""
    for block in text.split("\n\n"):
        case = {}
        for line in block.splitlines():
            word, _, rest = line.partition(" ")
            if word != "#":
                case[word] = case.get(word, "") + rest
        if "case" in case:
            yield case


def example(text):
    """The object that the page shows."""
    found = re.search(r"```text\n(key .*?)```", text, re.S)[1]
    case, word = {}, None
    for line in found.splitlines():
        first, *rest = line.split()
        if rest:
            word = first
        case[word] = case.get(word, "") + (rest[0] if rest else first)
    return case


def main():
    text, wire = Path(sys.argv[1]).read_text(), Path(sys.argv[2])
    page, is_signed = Page(text), verifier().is_signed
    check_object(page, "terms-cancel", example(text), is_signed)
    files = {path.stem: path for path in wire.glob("*.hex")}
    for kind in sorted(page.objects):
        for case in cases(files[kind].read_text()):
            try:
                check_object(page, kind, case, is_signed)
            except Wrong as wrong:
                sys.exit(f"{kind}, {case['case']}: {wrong}")
    lines = [line.split() for line in sys.stdin]
    for kind, data in lines:
        try:
            decode(page, kind, bytes.fromhex(data))
        except Wrong as wrong:
            sys.exit(f"{kind}: {wrong}\n{data}")
    unmet = page.unmet()
    if unmet:
        sys.exit("nothing has met " + ", ".join(unmet))
    print(f"{len(page.objects)} objects, {len(page.choices)} choices, {len(lines)} messages")


main()
