"""How the small base model that ships with the project is made: from seeds to weights on two CPU cores.

    songs -> corpus -> DCAE -> clock -> vocoder -> edges                               -> folder -> report
                         -> latents -> transformer and text encoder: steady music, then all,
                            then a clock of the bar and hip hop that follows it

What belongs here: music of every kind but lofi, the training of each part, and what is said about the result. What does
not: the model's classes (`backbones.ace_step_v1`), training a LoRA (`training`), lofi tracks (`demo.corpus`). What this
package makes is what a LoRA starts from: it is trained on no lofi, so that the LoRA has something to learn.
"""
