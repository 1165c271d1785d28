"""A manifest means the same here as for kubectl: the expected values were printed by kubectl 1.34 for the same text."""

from __future__ import annotations

import pytest

from finetune_cli.manifest import ManifestError, load, read_documents, scalar


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2e-4", 2e-4),
        ("3.0", 3),
        ("1e3", 1000),
        ("yes", True),
        ("y", True),
        ("on", True),
        ("n", False),
        ("~", None),
        ("012", 10),
        ("0o12", 10),
        ("0x1F", 31),
        ("-0x1F", -31),
        ("0b11", 3),
        ("1_000", 1000),
        ("1__0", 10),
        ("+5", 5),
        ("-0.0", 0),
        (".5", 0.5),
        ("5.", 5),
        ("1e400", "1e400"),
        ("2020-01-01", "2020-01-01"),
        ("12:30:45", "12:30:45"),
        ("089", 89),
        ("1.2.3", "1.2.3"),
        ("++5", "++5"),
        ("nan", "nan"),
        ("-", "-"),
        ("=", "="),
        ("9e18", 9 * 10**18),
        ("1e19", 1e19),
        ("18446744073709551615", 2.0**64),
        ("YES", True),
        ("True", True),
        ("tRue", "tRue"),
        ("NULL", None),
        ("s3://a/b", "s3://a/b"),
        ("10Gi", "10Gi"),
    ],
)
def test_plain_scalars(text: str, expected: object) -> None:
    value = scalar(text)
    assert value == expected
    assert type(value) is type(expected)


def test_quoted_and_tagged_scalars_keep_their_type() -> None:
    (document,) = read_documents('a: "5"\nb: !!str 5\nc: !!float 5\nd: "yes"\ne: |\n  no\n')
    assert document.data == {"a": "5", "b": "5", "c": 5, "d": "yes", "e": "no\n"}


def test_keys_are_strings_and_merges_apply_where_they_stand() -> None:
    (document,) = read_documents(
        "a: &a {x: 1, z: 2}\nb: {x: 3, <<: *a}\nc: {<<: *a, x: 3}\nd: {1: a, true: b, 2.5: c}\n"
    )
    assert document.data["b"] == {"x": 1, "z": 2}
    assert document.data["c"] == {"x": 3, "z": 2}
    assert document.data["d"] == {"1": "a", "true": "b", "2.5": "c"}


def test_several_documents_and_empty_ones() -> None:
    documents = read_documents("---\n# nothing\n---\na: 1\n---\n...\n---\n\nb: [1, {c: 2}]\n")
    assert [d.data for d in documents] == [{"a": 1}, {"b": [1, {"c": 2}]}]
    assert [d.line for d in documents] == [4, 9]
    assert documents[1].lines["b[1].c"] == 9


def test_lines_of_fields_and_of_those_that_are_missing() -> None:
    (document,) = read_documents("spec:\n  data:\n    train:\n      uri: x\n    labels:\n      - a\n      - b\n")
    assert document.line_of("spec.data.train.uri") == 4
    assert document.line_of("spec.data.labels[1]") == 7
    assert document.line_of("spec.data.train.split") == 3
    assert document.line_of("kind") == 1


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, ["a: set twice", "line 1", "remove one"]),
        ("a:\n\tb: 1\n", 2, ["tab", "indent with spaces"]),
        ("a: b: c\n", 1, ["indentation"]),
        ("a: {b: 1\n", 2, ["not closed"]),
        ("a: *nobody\n", 1, ["undefined alias"]),
        ("a: 1\nb: .nan\n", 2, [".nan is not a number that JSON can hold"]),
        ("? [a, b]\n: c\n", 1, ["a key must be a word"]),
        ("~: c\n", 1, ["a key must not be null"]),
        ("a: !!python/object:os.system x\n", 1, ["tag !!python/object:os.system is not supported"]),
        ("a: !!int word\n", 1, ["not a value of the YAML tag !!int"]),
        ("a: 1\nb: \x07\n", 2, ["U+0007"]),
        ("a: &x [*x]\n", 1, ["levels deep"]),
        ("[" * 5000, None, ["deep"]),
    ],
)
def test_text_that_cannot_be_used(text: str, line: int | None, words: list[str]) -> None:
    with pytest.raises(ManifestError) as caught:
        read_documents(text, "job.yaml")
    (finding,) = caught.value.findings
    assert finding.line == line or line is None
    assert str(finding).startswith("job.yaml:")
    for word in words:
        assert word in str(finding)
    assert "\n" not in str(finding)


def test_a_few_lines_that_stand_for_billions_of_values() -> None:
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x,x]"] + [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    with pytest.raises(ManifestError, match="more than 200000 values"):
        read_documents("\n".join(lines))


def test_files_that_cannot_be_read(tmp_path, monkeypatch) -> None:
    (tmp_path / "empty.yaml").touch()
    (tmp_path / "latin.yaml").write_bytes(b"a: 1\nb: \xe9\n")
    (tmp_path / "large.yaml").write_bytes(b"#" * (4 << 20))
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbfa: 1\n")
    expected = {
        "none.yaml": "no such file",
        ".": "is a directory",
        "empty.yaml": "holds no document",
        "latin.yaml": "2: not UTF-8",
        "large.yaml": "larger than 3 MiB",
    }
    monkeypatch.chdir(tmp_path)
    for name, words in expected.items():
        with pytest.raises(ManifestError, match=words):
            load(name)
    assert load("bom.yaml")[0].data == {"a": 1}
