"""Training of the demo model, stage by stage: pictures, films, text, latents, denoiser, export."""
