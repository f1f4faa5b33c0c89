"""The demo model: how its clips are drawn, how it is trained, and how what it makes is checked.

    scenes.py    what can be said of a clip: colour, background, shape, size, change
    drawing.py   a scene as frames
    captions.py  a scene in words, as a person would put it
    checker.py   frames to what is seen in them; knows nothing of the model
    training/    VAE, text encoder, denoiser, export; ``python -m demo_model.training FOLDER``

Not part of the installed package: that holds what the training gave, ``configs/models/shapes``.
"""
