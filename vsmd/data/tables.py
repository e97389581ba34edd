"""Tables as people have them: CSV and parquet files; of series, wide or long, as one wide table on a time index."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import IO, Any

import pandas as pd

from vsmd import checks, messages
from vsmd.data.calendars import BELOW_DAY, as_period, split_freq

_SAY = "csv={{'{0}': '{1}'}} (--{0} '{1}' of the command)"
LARGEST = 2**29  # bytes of a file, unpacked
CELLS = 2**27  # series times steps of a table, 1 GiB
LONG = (("unique_id", "ds", "y"), ("item_id", "timestamp", "target"))  # Nixtla's names, AutoGluon's
OFFSET = r"(:\d\d(?:\.\d+)?)(?:Z|[+-]\d\d(?::?\d\d)?)$"  # from UTC, after a time of day


def wide(source: pd.Series | pd.DataFrame | str | Path, freq: str, csv: dict[str, Any] | None) -> pd.DataFrame:
    """`source` with one numeric column a series and an index of time stamps without a zone, in the order it has.

    Below one day stamps with a zone are taken in UTC, where every hour is there once; from one day on as local dates.
    Raises ValueError, without the source's name, for what is no such table.
    """
    if isinstance(source, pd.Series):
        frame = source.to_frame()
    else:
        frame = source if isinstance(source, pd.DataFrame) else contents(Path(source), csv)
    columns = [str(c) for c in frame.columns]
    if twice := sorted({c for c in columns if columns.count(c) > 1}):
        raise ValueError(f"columns {checks.some(twice)} are there more than once; rename or drop them")
    if frame.index.name in ("unique_id", "item_id"):
        frame = frame.reset_index()
    if names := next((names for names in LONG if set(names) <= set(frame.columns)), None):
        frame = _pivoted(frame, *names)
    elif frame.index.dtype.kind in "iu" and len(frame.columns):
        dated = [c for c in frame.columns if frame[c].dtype.kind == "M"]
        if dated or frame.iloc[:, 0].dtype.kind not in "iufb" or not isinstance(source, pd.DataFrame):
            frame = frame.set_index(dated[0] if dated else frame.columns[0])
    if other := [str(c) for c in frame.columns if frame[c].dtype.kind not in "iuf"]:
        hint = "" if isinstance(source, pd.DataFrame) else f", or {_SAY.format('decimal', ',')} says how"
        raise ValueError(f"columns {checks.some(other)} hold no numbers; drop them{hint}")
    return frame.set_axis(_stamps(frame.index, freq))


def bounded(file: IO[bytes], name: str) -> bytes:
    """What a file or member `name` holds, .gz unpacked; ValueError beyond `LARGEST` bytes."""
    opened = gzip.GzipFile(fileobj=file) if name.endswith(".gz") else file
    data = b"".join(iter(lambda: opened.read(2**20) if opened.tell() <= LARGEST else b"", b""))
    if len(data) > LARGEST:
        raise ValueError(f"{name} has more than {LARGEST >> 20} MiB unpacked, which is the bound")
    return data


def check_cells(series: int, steps: int) -> None:
    """ValueError for a table of more than `CELLS` values."""
    if series * steps > CELLS:
        raise ValueError(f"{series} series of {steps:,} steps are more than {CELLS:,} values, which is the bound")


def read(name: str, path: Path, csv: dict[str, Any] | None = None) -> pd.DataFrame:
    """`contents`, whatever is wrong a ValueError in one line that names the argument and the path."""
    try:
        return contents(path, csv)
    except (OSError, ValueError) as error:
        raise ValueError(f"{name}={str(path)!r}: {error}") from None


def contents(path: Path, csv: dict[str, Any] | None = None) -> pd.DataFrame:
    """The table in a CSV (.gz) or parquet file of 512 MiB and 2^27 values at most.

    csv: arguments of `pandas.read_csv`; separator and decimal comma are seen without.
    Raises FileNotFoundError, or ValueError in one line without the path.
    """
    if not path.is_file():
        raise FileNotFoundError("there is no such file")
    try:
        if path.suffix not in (".parquet", ".pq"):
            with path.open("rb") as file:
                return _csv(bounded(file, path.name), csv or {})
        from pyarrow import parquet

        size = parquet.read_metadata(path)
        check_cells(size.num_columns, size.num_rows)
        return pd.read_parquet(path)
    except UnicodeDecodeError as error:
        guess = "utf-16" if error.object[:2] in (b"\xff\xfe", b"\xfe\xff") else "latin-1"
        said = f"is no {error.encoding.upper()} text from byte {error.start} on"
        raise ValueError(f"{said}; {_SAY.format('encoding', guess)} says what it is") from None
    except Exception as error:  # whatever pandas and pyarrow make of damaged bytes
        reason = messages.line(error, 120) or type(error).__name__
        raise ValueError(f"cannot be read ({reason}); {_SAY.format('sep', ';')} says how it is written") from None


def _csv(data: bytes, options: dict[str, Any]) -> pd.DataFrame:
    """A CSV file: separated by what its first line has most of; decimal commas where points leave text."""
    head = data.partition(b"\n")[0]
    options = {"sep": max(",;\t|", key=lambda mark: head.count(mark.encode())), **options}
    frame = pd.read_csv(io.BytesIO(data), **options)
    if options["sep"] == "," or "decimal" in options:
        return frame
    comma = pd.read_csv(io.BytesIO(data), **options, decimal=",")
    before, after = ({c for c, kind in f.dtypes.items() if kind.kind not in "iufb"} for f in (frame, comma))
    return comma if after < before else frame


def _pivoted(frame: pd.DataFrame, key: str, time: str, value: str) -> pd.DataFrame:
    """A long table, one row a series and step, as a wide one, sorted by time."""
    if other := [str(c) for c in frame.columns if c not in (key, time, value)]:
        raise ValueError(f"a long table has columns {key}, {time}, {value} alone; drop {checks.some(other)}")
    if (twice := frame.duplicated([key, time])).any():
        series, stamp = frame.loc[twice, [key, time]].iloc[0]
        said = f"has time stamp {messages.line(stamp, 80)} more than once; keep one row"
        raise ValueError(f"series {messages.told(series)} {said}")
    table = frame.pivot(index=time, columns=key, values=value)
    return table[list(dict.fromkeys(frame[key]))]


def _stamps(index: pd.Index[Any], freq: str) -> pd.DatetimeIndex:
    """An index as time stamps without a zone, in UTC below one day, else as they stand."""
    base = split_freq(freq)[1]
    if isinstance(index, pd.PeriodIndex):
        as_period(index[:1].tolist()[0] if len(index) else "2000-01-03", freq)
        index = index.to_timestamp()
    first = messages.told(index[:1].tolist())
    said = f"its index ({first} …) must hold time stamps such as 2024-01-31 or 2024-01-31T13:00"
    if index.dtype.kind in "iuf":
        if index.dtype.kind == "f" or not (base == "Y" or min(index, default=0) > 10**7):  # years, or 20240131
            raise ValueError(said)
        index = index.astype(str)
    try:
        if base in BELOW_DAY:
            return pd.DatetimeIndex(pd.to_datetime(index, format="ISO8601", utc=True)).tz_localize(None)
        if index.dtype.kind != "M":
            index = index.astype(str).str.replace(OFFSET, r"\1", regex=True)
        return pd.DatetimeIndex(pd.to_datetime(index, format="ISO8601")).tz_localize(None)
    except (ValueError, TypeError):
        raise ValueError(said) from None
