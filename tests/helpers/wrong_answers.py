"""Some of what students get wrong, and the hint it brings: number -> {answer as code: hint}."""

FUNCTIONS = {
    "0.2": "def slice_of(w, B, n, m):\n    return {}",
    "1.2": "def share_left(M, N, K):\n    return {}",
    "2.2": "def largest_that_saves(M, N):\n    return {}",
    "3.2": "def training_loss(model, images, labels):\n    return {}",
    "4.2": "def excess(kernel):\n    return {}",
    "5.3": (
        "def blueprint_layer(U, w, b, B, stride, padding):\n"
        "    return F.conv2d(F.conv2d(U, w[:, :, None, None], {}, B[:, None], groups=7, {})"
    ),
    "6.2": "def fits_depthwise_first(kernel):\n    return {}",
    "7.2": (
        "def share_kept_with(kernel, r):\n"
        "    sigma = torch.linalg.svdvals(kernel.flatten(2))\n    return {}"
    ),
    "8.2": (
        "def folded_weights(conv, norm):\n"
        "    s = norm.weight / (norm.running_var + norm.eps).sqrt()\n"
        "    return {}"
    ),
    "9.2": "def decibels(found, wanted):\n    return {}",
}


def written(number: str, *expressions: str) -> str:
    return FUNCTIONS[number].format(*expressions)


SCALED = "s[:, None, None, None] * conv.weight"
RANKS = "torch.linalg.matrix_rank"

WRONG: dict[str, dict[str, str]] = {
    "0.1": {
        "answer = 64 * 9": "the dense filter",
        "answer = 64 + 64 * 9": "counts once",
        "answer = 64": "the blueprint itself",
    },
    "0.2": {
        written("0.2", "w[n, m] * B[m]"): "a blueprint goes with the filter",
        written("0.2", "w[m, n] * B[n]"): "belongs to filter n and slice m",
        written("0.2", "B[n]"): "scaled by a number",
    },
    "1.1": {
        "answer = 32 * 64 * 5**2 * 32**2": "positions of the output",
        "answer = 32 * 64 * 5**2 * 16 * 32": "height and on width",
        "answer = 64 * 5**2 * 16**2": "all input channels",
    },
    "1.2": {
        written("1.2", "1 / K**2"): "the blueprints",
        written("1.2", "1 / M"): "the 1 x 1 part",
        written("1.2", "1 / K**2 + 1 / N"): "one blueprint for each filter",
    },
    "1.3": {
        "answer = 12.98": "all four stages",
        "answer = 79.0": "not it",
        "plan = bsconv.pytorch.BSConvU_Replacer(exclude=['layer4*']).plan(resnet)\n"
        "answer = 100 * plan.parameters_after / plan.parameters_before": "exclude names what stays",
    },
    "2.1": {
        "answer = 40 * 96 + 96 * 9": "that is BSConv-U",
        "answer = 7 * 40 + 96 * 7": "forgot the depthwise part",
        "answer = 6 * 40 + 96 * 6 + 96 * 9": "rounded up",
    },
    "2.2": {
        written("2.2", "M * N // (M + N)"): "M=64, N=64, it returned 32; with M' = M N",
        written("2.2", "M * N / (M + N)"): "whole",
        written("2.2", "N / (M + N)"): "the limit of M' / M",
    },
    "2.3": {
        "answer = share_kept(noise), share_kept(compose(w, B) + noise)": "the other order",
        "answer = 1 - share_kept(compose(w, B) + noise), 1 - share_kept(noise)": "lost",
        "answer = share_kept(compose(w, B)), share_kept(noise)": "add the noise",
    },
    "3.1": {
        "answer = (3**2 + 3**2) ** 0.5": "alpha times it",
        "answer = 0.1 * 18": "not squared",
        "answer = 0.1 * 2**0.5": "squared lengths",
    },
    "3.2": {
        written("3.2", "F.cross_entropy(model(images), labels)"): "is the penalty in it?",
        written(
            "3.2", "F.cross_entropy(model(images), labels) + bsconv.pytorch.reg_loss(model, 1.0)"
        ): "alpha should be 0.1",
        written(
            "3.2", "F.cross_entropy(model(images), labels) + model.reg_loss(alpha=0.1)"
        ): "no attribute 'reg_loss'",
    },
    "3.3": {
        "answer = 'cifar_resnet56'": "not a BSConv network",
        "answer = 'cifar_resnet20_bsconvu'": "not a BSConv network of at least 71.31 %",
        "answer = 'cifar_resnet602_bsconvu'": "there is a smaller one",
    },
    "4.1": {
        "answer = 1.0": "the share of variance",
        "answer = 9 / 10": "each of them has length 1",
        "answer = 1 / 2": "not equally frequent",
    },
    "4.2": {
        written("4.2", "kernel_spectra(kernel[None])[''][0, 0].item()"): "what would chance give?",
        written("4.2", "kernel_spectra(kernel[None])[''][0, 0].item() - 1 / 9"): "more than 1/9",
        written(
            "4.2",
            "kernel_spectra(kernel[None], center=False)[''][0, 0].item()"
            " - random_first_share(len(kernel), 9, False)",
        ): "the excess of energy",
    },
    "4.3": {
        "answer = {'positions', 'order', 'signs'}": "right for energy",
        "answer = {'order'}": "there is one more",
        "answer = {'order', 'between'}": "does change the shares",
    },
    "5.1": {
        "answer = 96 / 128": "as much",
        "answer = 1 / 2": "M = N",
        "answer = 32 / 96": "compare",
    },
    "5.2": {
        "answer = 64, 64, 1 / 4": "but takes 24% of the dense layer's MACs",
        "answer = 3, 16, 1": "but takes 86% of",
        "answer = 1, 8, 1": "it has 81 weights, dense 72: not fewer",
    },
    "5.3": {
        written("5.3", "b, stride=stride)", "padding=padding"): "drops pixels",
        written("5.3", "b, padding=padding)", "stride=stride"): "a frame",
        written("5.3", "None)", "stride=stride, padding=padding"): "is missing",
    },
    "6.1": {
        "answer = 4": "count both convolutions",
        "answer = (128 * 9 + 128 * 256) / (128 * 256 * 4 + 256 * 9)": "the other way round",
        "answer = (128 * 256 + 256 * 9) / (128 * 9 + 128 * 256)": "sees all pixels",
    },
    "6.2": {
        written("6.2", f"bool(({RANKS}(kernel.flatten(2)) <= 1).all())"): "matrices of the filters",
        written(
            "6.2", f"bool(({RANKS}(kernel.transpose(0, 1).flatten(2)) > 1).any())"
        ): "exchanged",
        written("6.2", f"({RANKS}(kernel.transpose(0, 1).flatten(2)) <= 1)"): "not it",
    },
    "6.3": {
        "answer = error(noise, fit_depthwise), error(noise, fit_blueprint)": "the other order",
        "answer = 1 - error(noise, fit_blueprint)**2, 1 - error(noise, fit_depthwise)**2": "kept",
        "answer = error(noise, fit_blueprint)**2, error(noise, fit_depthwise)**2": "squares",
    },
    "7.1": {
        "answer = 3 / 6": "of squares",
        "answer = 5 / 14": "lost",
        "answer = (9 / 14) ** 0.5": "no root",
    },
    "7.2": {
        written(
            "7.2", "(sigma[:, :r].square().sum(1) / sigma.square().sum(1)).mean()"
        ): "small filters like large ones",
        written("7.2", "sigma[:, :r].sum() / sigma.sum()"): "squares",
        written("7.2", "sigma[:, r:].square().sum() / sigma.square().sum()"): "lost",
    },
    "7.3": {
        "answer = 32": "there are fewer",
        "answer = 8": "keeps less",
        "answer = 8 / 32": "is not it",
    },
    "8.1": {
        "answer = 16 * 9 / (16 + 9)": "stride 1",
        "answer = 9 / 4": "many channels",
        "answer = (4 * 16 + 9) / (16 * 9)": "the other way round",
    },
    "8.2": {
        written("8.2", f"{SCALED}, norm.bias + conv.bias - s * norm.running_mean"): "scale it",
        written("8.2", f"{SCALED}, norm.bias - s * norm.running_mean"): "a bias of its own",
        written(
            "8.2", "conv.weight, norm.bias + s * (conv.bias - norm.running_mean)"
        ): "the weight wants scaling",
    },
    "8.3": {
        "answer = 9": "that is K = 3",
        "answer = 5": "there are two",
        "answer = 24": "the interior",
    },
    "9.1": {
        "answer = 96": "the blueprints",
        "answer = 92": "above the budget",
        "answer = 91 / 32": "how many times",
    },
    "9.2": {
        written("9.2", "10 * (found - wanted).square().mean().log10()"): "the sign",
        written("9.2", "-(found - wanted).square().mean().log10()"): "ten times",
        written("9.2", "-10 * (found - wanted).square().mean().sqrt().log10()"): "no root",
    },
}
