# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Files in object stores, through fsspec: ``s3://bucket/folder``, ``gs://bucket/*.pcap``."""

from vnethash.analysis.files import LOOKS_RIGHT, File
from vnethash.errors import CaptureError


def find_objects(address: str) -> list[File]:
    """The object itself, those that a pattern fits, or all captures and flow tables in a folder.

    Raises CaptureError if there is none, or the store cannot be asked.
    """
    scheme = address.partition("://")[0]
    try:
        from fsspec.core import has_magic, url_to_fs

        store, path = url_to_fs(address)
        if has_magic(path):
            found = store.glob(path, detail=True)
        elif store.isdir(path):
            found = store.find(path, detail=True)
            found = {name: info for name, info in found.items() if LOOKS_RIGHT.search(name)}
        else:
            return [File(address, store.size(path) if store.exists(path) else None)]
    except ImportError:
        return [File(address)]  # whoever opens it says what is missing
    except ValueError as error:
        raise CaptureError(address, f"cannot be opened: {error}") from error
    except Exception as error:
        # Each store has errors of its own, of no common base.
        raise CaptureError(address, f"cannot be listed: {type(error).__name__}: {error}") from error
    files = [
        File(store.unstrip_protocol(name), info.get("size"))
        for name, info in sorted(found.items())
        if info.get("type") == "file"
    ]
    if not files:
        raise CaptureError(address, f"no captures or flow tables at this {scheme} address")
    return files
