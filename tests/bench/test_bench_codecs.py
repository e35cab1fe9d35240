"""The benchmark of encodings: it encodes what it says, refuses what differs, and judges."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench import codecs
from bench.harness import is_installed

N_BYTES = 64 << 10


# What peers warn of is theirs.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", codecs.KINDS)
@pytest.mark.parametrize("codec", codecs.CODECS)
def test_codec_gives_every_kind_of_data_back(codec: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    row, data = codecs.CODECS[codec], codecs.KINDS[kind]
    if lacking := [package for package in (*row.needs, *data.needs) if not is_installed(package)]:
        pytest.skip(f"needs {', '.join(lacking)}")
    if row.dtypes is not None and data.dtype not in row.dtypes:
        pytest.skip(f"{codec} is not made for {data.dtype}")
    monkeypatch.setattr(codecs, "CHUNK_BYTES", N_BYTES)
    chunks = codecs._chunks(data, 2)
    figures = codecs.measure(codec, kind, chunks)
    assert figures["raw_bytes"] == 2 * N_BYTES
    if kind == "random" or codec == codecs.COPY:
        assert figures["stored_bytes"] >= figures["raw_bytes"]
    elif codec == codecs.OURS:
        assert figures["stored_bytes"] < 0.9 * figures["raw_bytes"]


def test_codec_that_decodes_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = replace(codecs.CODECS["copy"], make=lambda kind: (bytes, lambda stored, into: b"else"))
    monkeypatch.setattr(codecs, "CODECS", {"copy": wrong})
    with pytest.raises(codecs.ChunkDiffersError, match="random"):
        codecs.measure("copy", "random", [b"some"])


def _rounds(seconds: float) -> dict[tuple[str, str], list[dict[str, float]]]:
    """Of a GB each."""
    result = {"raw_bytes": 1e9, "stored_bytes": 8e8, "encode_s": seconds, "decode_s": 1.0}
    return {(kind, codecs.OURS): [result] for kind in codecs.KINDS}


def test_a_core_has_to_encode_models_fast_enough() -> None:
    adam, bf16, random = codecs.judge(_rounds(1.0))
    assert str(adam) == "encoding fp32 + Adam, a core ≥ 0.9 GB/s: met, 1 GB/s"
    assert str(bf16).endswith(": met, 1 GB/s")
    assert random.word == "told"
    assert [verdict.word for verdict in codecs.judge(_rounds(1.2))] == ["NOT MET", "NOT MET", "told"]


def test_model_and_optimizer_are_told_as_one() -> None:
    rounds = _rounds(1.0)
    rounds["fp32 weights", codecs.OURS][0] = {**rounds["random", codecs.OURS][0], "encode_s": 4.0}
    adam = next(codecs.judge(rounds))
    assert adam.measured == pytest.approx(3 / 6)
    assert "| fp32 + Adam " in codecs.render(rounds)
    del rounds["Adam exp_avg", codecs.OURS]
    assert "| fp32 + Adam " not in codecs.render(rounds)
