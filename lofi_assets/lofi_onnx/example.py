"""Music from this bundle alone: `python example.py "lofi hip hop, rhodes, 74 bpm" --tier int8`.

Needs numpy, onnxruntime, tokenizers and soundfile, and nothing of the project that made the bundle.
"""

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "runtime"))


def main() -> None:
    """Write one clip."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prompt", help="comma-separated tags")
    parser.add_argument("--tier", default="fp16", choices=["fp16", "int8", "int4"])
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--guidance-scale", type=float, default=15.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("music.wav"))
    options = parser.parse_args()

    import soundfile
    from lofi_onnx.pipeline import OnnxPipeline

    audio = OnnxPipeline(HERE / options.tier).generate(
        [options.prompt],
        seconds=options.seconds,
        seeds=[options.seed],
        steps=options.steps,
        guidance_scale=options.guidance_scale,
    )
    soundfile.write(options.output, audio[0].T, 48000)
    print(f"{options.output}: {options.seconds:g} s, {options.tier}, seed {options.seed}")


if __name__ == "__main__":
    main()
