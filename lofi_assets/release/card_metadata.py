"""The model card's metadata block, as the Hub reads it (https://huggingface.co/docs/hub/model-cards).

The numbers are read, never computed. `datasets` stays out: it names datasets on the Hub, and the training set is none.
The samples of the `widget` are the bundle's own (`bundle_samples.py`): those of the checkpoint are named after tracks.
"""

from typing import TYPE_CHECKING, Any

from lofi_assets.backbones import Backbone
from lofi_assets.metrics.results import Evaluation
from lofi_assets.profiles import Profile
from lofi_assets.release.bundle_samples import Samples, widget

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

LICENCES = {"apache-2.0": "https://www.apache.org/licenses/LICENSE-2.0", "mit": "https://opensource.org/license/mit"}
"""Where a licence can be read; of others at spdx.org."""


def front_matter(profile: Profile, family: Backbone, quality: Evaluation | None, samples: Samples | None = None) -> str:
    """The block with its delimiters; the same text for the same facts.

    Raises:
        ValueError: huggingface_hub does not take a value.
    """
    from huggingface_hub import ModelCardData

    results = _results(quality)
    license = profile.release.license
    base = profile.base_model
    extra: dict[str, Any] = {"base_model_revision": base.revision} if base.kind == "hub" and base.revision else {}
    data = ModelCardData(
        language="en",
        license=license,
        license_link=LICENCES.get(license, f"https://spdx.org/licenses/{license}.html"),
        base_model=base.path if base.kind == "hub" else None,
        base_model_relation="adapter" if base.kind == "hub" else None,
        library_name="onnx",
        pipeline_tag="text-to-audio",
        tags=["lora", "music", "text-to-music", "lofi", "onnx", family.hub_tag],
        metrics=sorted({result.metric_type for result in results}) or None,
        model_name="lofi-lora" if results else None,
        eval_results=results or None,
        widget=widget(samples),
        **extra,
    )
    return f"---\n{data.to_yaml()}\n---\n"


def _results(quality: Evaluation | None) -> list["EvalResult"]:
    """FAD and KAD with their encoder and interval; none that could not be measured."""
    from huggingface_hub import EvalResult

    if quality is None:
        return []
    fad = quality.fad
    measured = [("fad", "FAD", fad.value, fad.interval), ("kad", "KAD", fad.kad, fad.kad_interval)]
    return [
        EvalResult(
            task_type="text-to-audio",
            task_name="Text to music",
            dataset_type="private",
            dataset_name="held-out lofi tracks",
            metric_type=kind,
            metric_name=f"{name} ({quality.encoder}, {fad.n_clips} clips{interval_text(interval)})",
            metric_value=round(value, 3),
        )
        for kind, name, value, interval in measured
        if value is not None
    ]


def interval_text(interval: tuple[float | None, float | None] | None) -> str:
    """`, 95 % 2.9 to 3.6`; empty where there is none."""
    if interval is None or None in interval:
        return ""
    lower, upper = interval
    return f", 95 % {lower:.3g} to {upper:.3g}"
