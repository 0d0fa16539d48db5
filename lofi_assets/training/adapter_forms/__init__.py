"""LoRAs of any origin: read as what they are, described, and written in the form that another reader takes.

    ace_step    pytorch_lora_weights.safetensors of ACE-Step's trainer: names as in the model
    diffusers   the same behind `transformer.`, as diffusers' pipelines and SimpleTuner write it
    peft        adapter_config.json and adapter_model.safetensors; a checkpoint's folder of this project too
    comfyui     `diffusion_model.` or `lora_unet_`, lora_up / lora_down, `.alpha`

What belongs here: the conventions of each form (names, where the strength stands), and the refusal of what is none of
them. What does not: training from such a file (`training.initial`), sampling it (`evaluation`).

The files are untrusted. Only safetensors is read; every tensor is used or named in the error, and its shape is held
against the base before it is read.
"""
