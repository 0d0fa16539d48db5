"""Music from this bundle alone: `python generate.py "lofi hip hop, rhodes, 74 bpm" --tier int8 -o out.wav`.

Needs what requirements.txt names, and nothing of the project that made the bundle.
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
    parser.add_argument("--lyrics", type=Path, help="text file; without it the clip is instrumental")
    parser.add_argument("--language", help="of the lyrics, as de; by default found out")
    parser.add_argument("--tier", default="fp16", choices=["fp16", "int8", "int4"])
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="by default as many as the tiers were measured with")
    parser.add_argument("--guidance-scale", type=float, help="by default the one that the tiers were measured with")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--no-cpu-graph", action="store_true", help="int8 with the graph that every provider runs")
    parser.add_argument("--latents", type=Path, help="write the latents here too, as .npy")
    parser.add_argument("-o", "--output", type=Path, default=Path("out.wav"), help=".wav, or .npy for float32")
    options = parser.parse_args()

    from lofi_onnx.clip import ClipError, write_clip
    from lofi_onnx.description import DescriptionError
    from lofi_onnx.pipeline import RuntimeFolderError
    from lofi_onnx.spelling import LyricError

    try:
        told = write_clip(
            HERE,
            options.prompt,
            output=options.output,
            tier=options.tier,
            lyrics=options.lyrics.read_text(encoding="utf-8") if options.lyrics else "",
            language=options.language,
            seconds=options.seconds,
            seed=options.seed,
            steps=options.steps,
            guidance_scale=options.guidance_scale,
            latents=options.latents,
            threads=options.threads,
            cpu_graph=not options.no_cpu_graph,
        )
    except (ClipError, DescriptionError, RuntimeFolderError, LyricError, OSError, UnicodeDecodeError) as error:
        sys.exit(f"generate.py: {error}")
    print(told)


if __name__ == "__main__":
    main()
