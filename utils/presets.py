"""Presets: which model is trained on which data, and how. Nothing but settings."""

CONVOLUTION = {
    "task": {"name": "imdb", "min_films": 5},
    "model_class": "WordConvolution",
    "model": {"num_units": 128, "reaches": (1, 2), "dropout": 0.3},
    "log_odds_scale": 0.05,
    "fit": {"epochs": 4, "batch_size": 64, "max_tokens": 512, "learning_rate": 2e-3, "schedule": "linear"}
    | {"embedding_lr": 0.04, "word_dropout": 0.2},
}
# Chosen on both validations, and frozen before the test set was looked at; `lecture` has the published settings.
PRESETS = {
    "lecture": {
        "task": {"name": "imdb", "tokenizer": "spaces", "max_words": 50_000, "max_first_tokens": 200},
        "model_class": "LectureClassifier",
        "model": {"d_model": 32, "num_heads": 2, "d_hidden": 128, "num_layers": 3},
        "fit": {"epochs": 10, "batch_size": 164, "max_tokens": 200, "learning_rate": 1e-3, "schedule": "constant"},
    },
    "encoder": {
        "task": {"name": "imdb", "min_films": 20},
        "model_class": "ReviewClassifier",
        "model": {"d_model": 64, "num_heads": 4, "d_hidden": 128, "num_layers": 1, "dropout": 0.3, "word_scale": 8.0},
        "log_odds_scale": 0.05,
        "fit": CONVOLUTION["fit"] | {"embedding_lr": 0.02, "word_dropout": 0.4},
    },
    "convolution": CONVOLUTION,
    "quick": CONVOLUTION | {"model": {"num_units": 16, "dropout": 0.3}, "fit": CONVOLUTION["fit"] | {"epochs": 2}},
    "toy": {
        "task": {"name": "toy", "min_films": 1},
        "model_class": "ReviewClassifier",
        "model": {"d_model": 64, "num_heads": 4, "d_hidden": 128, "num_layers": 1},
        "fit": {"epochs": 35, "batch_size": 32, "max_tokens": 128, "learning_rate": 2e-3, "word_dropout": 0.05}
        | {"threads": 1},  # two are 10 % faster if both cores are idle, but three times slower if one is busy
    },
}

# name: (a preset, what is changed in it). Measured on both validations, never on the test reviews.
VARIANTS = {
    "encoder, first 200 words only": ("encoder", {"task": {"max_first_tokens": 200}, "fit": {"max_tokens": 200}}),
    "encoder, split at spaces": ("encoder", {"task": {"tokenizer": "spaces"}}),
    "encoder, no dropout": ("encoder", {"model": {"dropout": 0.0}, "fit": {"word_dropout": 0.0}}),
    "encoder, no positions": ("encoder", {"model": {"positions": False}}),
    "convolution, no neighbours": ("convolution", {"model": {"reaches": (0,)}}),
    "convolution, one width": ("convolution", {"model": {"reaches": (1,)}}),
}
