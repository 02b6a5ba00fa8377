"""Recipes of the kind the literature uses, and where each value of them is from."""

from dataclasses import replace

from overconv.training.recipe import Recipe

# The three of the literature have bfloat16 where T. He et al. have float16, for it needs no scaled
# loss, and the channels last, as tensor cores read them.

# The residual network of 18 layers and MobileNetV2 at the strides of 32 pixels.
CIFAR = Recipe(
    # S. Zagoruyko, N. Komodakis, "Wide residual networks", BMVC 2016, section 3: 200 epochs, SGD
    # with Nesterov's momentum 0.9, rate 0.1, batches of 128, decay 5e-4, crops of a padding by 4,
    # flips.
    epochs=200,
    batch_size=128,
    optimizer="sgd",
    lr=0.1,
    momentum=0.9,
    nesterov=True,
    weight_decay=5e-4,
    crop_padding=4,
    flip=True,
    # I. Loshchilov, F. Hutter, "SGDR", ICLR 2017: one cosine in the place of the steps.
    schedule="cosine",
    # T. He et al., "Bag of tricks", CVPR 2019, sections 3.1 and 5: five epochs of warm-up, no
    # decay of norms and biases, labels smoothed by 0.1.
    warmup_epochs=5,
    decay="weights",
    label_smoothing=0.1,
    # H. Zhang et al., "mixup", ICLR 2018, section 3.2: alpha = 1 for CIFAR-10 and CIFAR-100.
    mixup=1.0,
    # A. Tarvainen, H. Valpola, "Mean teachers", NIPS 2017, section 3: 0.999 a step.
    ema=0.999,
    # K. He et al., "Deep residual learning", CVPR 2016, section 4.2: 45,000 to train on.
    num_validation=5000,
    amp="bfloat16",
    channels_last=True,
)

# Residual networks of 18 and 50 layers.
IMAGENET_RESNET = Recipe(
    # T. He et al., "Bag of tricks", CVPR 2019, sections 2 to 5: Nesterov's momentum 0.9, rate 0.1
    # for batches of 256, decay 1e-4 but of norms and biases, five epochs of warm-up, cosine, labels
    # smoothed by 0.1, mixup with alpha = 0.2 and for its sake 200 epochs.
    epochs=200,
    batch_size=256,
    optimizer="sgd",
    lr=0.1,
    momentum=0.9,
    nesterov=True,
    weight_decay=1e-4,
    decay="weights",
    schedule="cosine",
    warmup_epochs=5,
    label_smoothing=0.1,
    mixup=0.2,
    # Ibid., section 2.1: crops of 8 % of the area and more, to 224 pixels, and flips.
    resized_crop=0.08,
    image_size=224,
    flip=True,
    # M. Tan, Q. V. Le, "EfficientNet", ICML 2019, and A. Howard et al., "Searching for
    # MobileNetV3", ICCV 2019, section 6.1: 0.9999 a step.
    ema=0.9999,
    # L. Beyer et al., "Better plain ViT baselines", 2022: 1 % of the training part set aside.
    num_validation=12_812,
    amp="bfloat16",
    channels_last=True,
)

# Decay of weights alone is also in the public code of M. Sandler et al., "MobileNetV2", CVPR 2018;
# mixup with alpha = 0.2 also in Y. Li et al., "Revisiting dynamic convolution via matrix
# decomposition", ICLR 2021, section 5. What differs:
IMAGENET_MOBILENET = replace(
    IMAGENET_RESNET,
    # Y. Chen et al., "Dynamic convolution", CVPR 2020, section 5.1: 300 epochs, SGD with momentum
    # 0.9, rate 0.05, cosine, decay 4e-5, labels smoothed by 0.1, batches of 256; dropout 0.2 is the
    # network's own.
    epochs=300,
    lr=0.05,
    nesterov=False,
    weight_decay=4e-5,
)

# The small images that Debian has, where the others' files cannot be had.
FASHION_MNIST = Recipe(
    # As CIFAR's, of Zagoruyko and Komodakis and T. He et al.
    epochs=200,
    lr=0.1,
    weight_decay=5e-4,
    warmup_epochs=5,
    crop_padding=4,
    flip=True,
    num_validation=5000,
)
