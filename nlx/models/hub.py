"""timm's weights from the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from nlx.arguments import ArgumentError

_SCHEME = "timm:"
_QUICK = ("_clip_quickgelu_", "_clip_")  # timm has one file for both activations


def fetched(path: Path) -> Path:
    """The file that ``timm:NAME`` stands for, fetched if it has not been before; any other path as it is.

    It lies in the cache of huggingface_hub (``HF_HOME``), its config.json beside it.

    Args:
      path: of a file or folder, or ``timm:NAME`` where NAME is a model of timm's with the tag of its weights, such as
        ``resnet50.a1_in1k``.

    Raises:
      ArgumentError: there is no huggingface_hub, no network or no such model, or the hub refuses.
    """
    if not str(path).startswith(_SCHEME):
        return path
    name = str(path).removeprefix(_SCHEME)
    try:
        from huggingface_hub import errors, hf_hub_download  # nothing else needs it
    except ImportError:
        raise ArgumentError(
            f"{path} is fetched by huggingface_hub, which is not here: pip install huggingface_hub, or name a file"
        ) from None
    repository = f"timm/{name.replace(*_QUICK)}"
    files = ("config.json", "model.safetensors")
    try:
        try:
            found = [hf_hub_download(repository, file, local_files_only=True) for file in files]
        except errors.LocalEntryNotFoundError:
            found = [hf_hub_download(repository, file) for file in files]
    except errors.LocalEntryNotFoundError as error:
        raise ArgumentError(f"{path} cannot be fetched, for there is no network here: name a file") from error
    except (errors.RepositoryNotFoundError, errors.EntryNotFoundError, errors.HFValidationError) as error:
        raise ArgumentError(
            f"{path}: the hub has no such weights of timm's: give the name with its tag, as in timm:resnet50.a1_in1k"
        ) from error
    except Exception as error:  # of whatever library carries it
        raise ArgumentError(f"{path} cannot be fetched ({type(error).__name__}): try again, or name a file") from error
    return Path(found[-1])
