"""Some of what students get wrong, and the hint it brings."""

# what the student has written around the expression in the table; elsewhere "answer = ..."
AROUND = {
    "0.2": "def slice_of(w, B, n, m):\n    return ...",
    "1.2": "def share_left(M, N, K):\n    return ...",
    "1.3": "plan = bsconv.pytorch.BSConvU_Replacer(exclude=['layer4*']).plan(resnet)\nanswer = ...",
    "2.2": "def largest_that_saves(M, N):\n    return ...",
    "3.2": "def training_loss(model, images, labels):\n"
    "    entropy = F.cross_entropy(model(images), labels)\n    return ...",
    "4.2": "def excess(kernel):\n"
    "    sigma = torch.linalg.svdvals(kernel.flatten(1) - kernel.flatten(1).mean(0))\n"
    "    first = lambda center: kernel_spectra(kernel[None], center)[''][0, 0].item()\n"
    "    return ...",
    "5.3": "def blueprint_layer(U, w, b, B, stride, padding):\n"
    "    pw = lambda **how: F.conv2d(U, w[:, :, None, None], **how)\n"
    "    dw = lambda mixed, **how: F.conv2d(mixed, B[:, None], groups=7, **how)\n    return ...",
    "6.2": "def fits_depthwise_first(kernel):\n"
    "    rank, by_channel = torch.linalg.matrix_rank, kernel.transpose(0, 1).flatten(2)\n"
    "    return ...",
    "7.2": "def share_kept_with(kernel, r):\n"
    "    sigma = torch.linalg.svdvals(kernel.flatten(2))\n"
    "    energy = sigma.square()\n    return ...",
    "8.2": "def folded_weights(conv, norm):\n"
    "    s = norm.weight / (norm.running_var + norm.eps).sqrt()\n"
    "    weight = s[:, None, None, None] * conv.weight\n    return ...",
    "9.2": "def decibels(found, wanted):\n    return ...",
}
TABLE = """
0.1 | 64 * 9 | the dense filter
0.1 | 64 + 64 * 9 | counts once
0.1 | 64 | the blueprint itself
0.2 | w[n, m] * B[m] | a blueprint goes with the filter
0.2 | w[m, n] * B[n] | belongs to filter n and slice m
0.2 | B[n] | scaled by a number
1.1 | 32 * 64 * 5**2 * 32**2 | positions of the output
1.1 | 32 * 64 * 5**2 * 16 * 32 | height and on width
1.1 | 64 * 5**2 * 16**2 | all input channels
1.2 | 1 / K**2 | the blueprints
1.2 | 1 / M | the 1 x 1 part
1.2 | 1 / K**2 + 1 / N | one blueprint for each filter
1.3 | 12.98 | all four stages
1.3 | 79.0 | not correct
1.3 | 100 * plan.parameters_after / plan.parameters_before | exclude names what stays
2.1 | 40 * 96 + 96 * 9 | that is BSConv-U
2.1 | 7 * 40 + 96 * 7 | forgot the depthwise part
2.1 | 6 * 40 + 96 * 6 + 96 * 9 | rounded up
2.2 | M * N // (M + N) | M=64, N=64, it returned 32; with M' = M N
2.2 | M * N / (M + N) | whole
2.2 | N / (M + N) | the limit of M' / M
2.3 | share_kept(noise) | should be 2 values
2.3 | share_kept(noise), share_kept(compose(w, B) + noise) | the other order
2.3 | 1 - share_kept(compose(w, B) + noise), 1 - share_kept(noise) | lost
2.3 | share_kept(compose(w, B)), share_kept(noise) | add the noise
3.1 | (3**2 + 3**2) ** 0.5 | alpha times it
3.1 | 0.1 * 18 | not squared
3.1 | 0.1 * 2**0.5 | squared lengths
3.2 | entropy | is the penalty in it?
3.2 | entropy + bsconv.pytorch.reg_loss(model, 1.0) | alpha should be 0.1
3.2 | entropy + model.reg_loss(alpha=0.1) | no attribute 'reg_loss'
3.3 | 'cifar_resnet56' | not a BSConv network
3.3 | 'cifar_resnet20_bsconvu' | not a BSConv network of at least 71.31 %
3.3 | 'cifar_resnet602_bsconvu' | there is a smaller one
4.1 | 1.0 | the share of variance
4.1 | 9 / 10 | each of them has length 1
4.1 | 1 / 2 | not equally frequent
4.2 | first(True) | what would chance give?
4.2 | first(True) - 1 / 9 | more than 1/9
4.2 | first(False) - random_first_share(len(kernel), 9, False) | the excess of energy
4.2 | (sigma[0] / sigma.sum()).item() - random_first_share(len(kernel), 9) | squares of the
4.3 | {'positions', 'order', 'signs'} | right for energy
4.3 | {'order'} | there is one more
4.3 | {'order', 'between'} | does change the shares
5.1 | 96 / 128 | as much
5.1 | 1 / 2 | M = N
5.1 | 32 / 96 | compare
5.2 | 64, 64, 1 / 4 | but takes 24% of the dense layer's MACs
5.2 | 3, 16, 1 | but takes 86% of
5.2 | 1, 8, 1 | it has 81 weights, dense 72: not fewer
5.3 | dw(pw(bias=b, stride=stride), padding=padding) | drops pixels
5.3 | dw(pw(bias=b, padding=padding), stride=stride) | a frame
5.3 | dw(pw(), stride=stride, padding=padding) | is missing
6.1 | 4 | count both convolutions
6.1 | (128 * 9 + 128 * 256) / (128 * 256 * 4 + 256 * 9) | the other way round
6.1 | (128 * 256 + 256 * 9) / (128 * 9 + 128 * 256) | sees all pixels
6.2 | bool((rank(kernel.flatten(2)) <= 1).all()) | matrices of the filters
6.2 | bool((rank(by_channel) > 1).any()) | exchanged
6.2 | rank(by_channel) <= 1 | not correct
6.3 | error(noise, fit_depthwise), error(noise, fit_blueprint) | the other order
6.3 | 1 - error(noise, fit_blueprint)**2, 1 - error(noise, fit_depthwise)**2 | kept
6.3 | error(noise, fit_blueprint)**2, error(noise, fit_depthwise)**2 | squares
7.1 | 3 / 6 | of squares
7.1 | 5 / 14 | lost
7.1 | (9 / 14) ** 0.5 | no root
7.2 | (energy[:, :r].sum(1) / energy.sum(1)).mean() | small filters like large ones
7.2 | sigma[:, :r].sum() / sigma.sum() | squares
7.2 | energy[:, r:].sum() / energy.sum() | lost
7.3 | 32 | fewer are enough
7.3 | 8 | part of the kernel
7.3 | 8 / 32 | is not correct
8.1 | 16 * 9 / (16 + 9) | stride 1
8.1 | 9 / 4 | many channels
8.1 | (4 * 16 + 9) / (16 * 9) | the other way round
8.2 | weight, norm.bias + conv.bias - s * norm.running_mean | scale it
8.2 | weight, norm.bias - s * norm.running_mean | has a bias, too
8.2 | conv.weight, norm.bias + s * (conv.bias - norm.running_mean) | scale the weight
8.3 | 9 | that is K = 3
8.3 | 5 | there are two
8.3 | 24 | the interior
9.1 | 96 | the blueprints
9.1 | 92 | above the budget
9.1 | 91 / 32 | how many times
9.2 | 10 * (found - wanted).square().mean().log10() | more decibels
9.2 | -(found - wanted).square().mean().log10() | ten times
9.2 | -10 * (found - wanted).square().mean().sqrt().log10() | no root
"""
WRONG: dict[str, dict[str, str]] = {}  # by number: {answer as code: hint}
for row in TABLE.strip().splitlines():
    number, expression, hint = row.split(" | ")
    answer = AROUND.get(number, "answer = ...").replace("...", expression)
    WRONG.setdefault(number, {})[answer] = hint
