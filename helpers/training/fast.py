"""Fast: fused layers and optimizer, fast arithmetic, all GPUs at once, and traced prediction.

``benchmarks/`` measures what each is worth.
"""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import keras
import numpy as np
from keras import layers

from helpers.files import release_pages
from helpers.parallel import list_bfloat16_units
from helpers.progress import open_stage
from helpers.training import tf
from helpers.training.checking import check_values


class FusedBatchNormalization(layers.BatchNormalization):
    """Batch normalization in TensorFlow's fused kernel; inputs other than images with channels last are left to Keras.

    Weights, hyperparameters and saved form are those of ``keras.layers.BatchNormalization``: a saved model opens in
    plain Keras, and `load_model` makes it fused again.
    """

    def call(self, inputs, training=None, mask=None):
        fusible = len(inputs.shape) == 4 and self.axis in (-1, 3) and mask is None and self.variable_dtype == "float32"
        if not (fusible and self.scale and self.center) or self.synchronized or self.renorm:
            return super().call(inputs, training=training, mask=mask)
        learns = bool(training and self.trainable)
        empty = tf.zeros([0])
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma,
            offset=self.beta,
            mean=empty if learns else self.moving_mean,
            variance=empty if learns else self.moving_variance,
            epsilon=self.epsilon,
            is_training=learns,
        )
        if learns:
            # The kernel returns the unbiased variance; Keras keeps the biased one.
            count = tf.cast(tf.size(inputs) // inputs.shape[-1], tf.float32)
            for moving, new in ((self.moving_mean, mean), (self.moving_variance, variance * (count - 1) / count)):
                moving.assign(moving * self.momentum + new * (1 - self.momentum))
        return outputs


class FusedNormalization(layers.Normalization):
    """Standardization of images by given statistics, a whole image at a time, and saved likewise.

    Keras subtracts and divides along the innermost axis, which is slow for the few channels of an image.
    """

    def call(self, inputs):
        if len(inputs.shape) != 4 or None in inputs.shape[1:] or self.input_mean is None or self.invert:
            return super().call(inputs)
        if self.dtype_policy.name != "float32":
            return super().call(inputs)
        _, height, width, channels = inputs.shape
        mean, variance = (tf.tile(tf.reshape(values, [-1]), [height * width]) for values in (self.mean, self.variance))
        flat = tf.reshape(tf.cast(inputs, tf.float32), [-1, height * width * channels])
        scale = 1 / tf.maximum(tf.sqrt(variance), keras.config.epsilon())
        return tf.reshape((flat - mean) * scale, [-1, height, width, channels])


class FusedDepthwiseConv2D(layers.DepthwiseConv2D):
    """Depthwise convolution whose gradients in bfloat16 are fast and right on a processor too, and saved likewise.

    TensorFlow has no fast kernel there for two gradients, which take up to 70 times as long: that of the input where
    the stride is 2 is computed in float32 here, and that of a kernel of 5x5 is put together of four of 3x3. That of the
    bias TensorFlow adds up in 8 bits, until it stops growing: here it is a product of matrices, which adds in float32.
    On a processor without units for bfloat16 TensorFlow adds up the outputs in 8 bits, too: there all is computed in
    float32, and only the outputs are rounded.
    """

    def call(self, inputs):
        known = self.kernel_size[0] == self.kernel_size[1] in (3, 5) and self.strides[0] == self.strides[1]
        plain = self.depth_multiplier == 1 and set(self.dilation_rate) == {1} and self.data_format == "channels_last"
        in_bfloat16 = self.compute_dtype == "bfloat16" and not tf.config.list_physical_devices("GPU")
        if not (known and plain and in_bfloat16 and self.use_bias and None not in inputs.shape[1:]):
            return super().call(inputs)
        has_units = bool(list_bfloat16_units())
        dtype, convolve = ("bfloat16", _convolve_depthwise) if has_units else ("float32", _convolve_depthwise_plainly)
        images, kernel, bias = (tf.cast(values, dtype) for values in (inputs, self.kernel, self.bias))
        options = {"strides": [1, *self.strides, 1], "padding": self.padding.upper()}
        return self.activation(tf.cast(convolve(images, kernel, bias, **options), "bfloat16"))


def _convolve_depthwise_plainly(images, kernel, bias, **options):
    return tf.nn.bias_add(tf.nn.depthwise_conv2d(images, kernel, **options), bias)


def _convolve_depthwise(images, kernel, bias, **options):
    stride = options["strides"][1]

    @tf.custom_gradient
    def convolve(images, kernel, bias):
        def compute_gradients(gradient):
            dtype = "bfloat16" if stride == 1 else "float32"
            image_gradient = tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
                input_sizes=tf.shape(images),
                filter=tf.cast(kernel, dtype),
                out_backprop=tf.cast(gradient, dtype),
                **options,
            )
            compute = _compute_kernel_gradient if kernel.shape[0] == 3 else _join_kernel_gradients
            places = tf.reshape(gradient, [-1, gradient.shape[-1]])
            bias_gradient = tf.matmul(tf.ones([1, tf.shape(places)[0]], "bfloat16"), places)[0]
            return tf.cast(image_gradient, "bfloat16"), compute(images, gradient, **options), bias_gradient

        return _convolve_depthwise_plainly(images, kernel, bias, **options), compute_gradients

    return convolve(images, kernel, bias)


def _compute_kernel_gradient(images, gradient, strides, padding):
    """Compute the gradient of a depthwise kernel of 3x3."""
    return tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
        input=images,
        filter_sizes=[3, 3, images.shape[-1], 1],
        out_backprop=gradient,
        strides=strides,
        padding=padding,
    )


def _join_kernel_gradients(images, gradient, strides, padding):
    """Compute the gradient of a depthwise kernel of 5x5 from those of its corners of 3x3, which share the middle."""
    lengths = [(count - 1) * strides[1] for count in gradient.shape[1:3]]  # from the first place to the last
    if padding == "SAME":
        added = [max(length + 5 - before, 0) for length, before in zip(lengths, images.shape[1:3], strict=True)]
        images = tf.pad(images, [(0, 0), *((count // 2, count - count // 2) for count in added), (0, 0)])
    height, width = (length + 3 for length in lengths)
    corners = [
        [
            _compute_kernel_gradient(
                images[:, top : top + height, left : left + width], gradient, strides, padding="VALID"
            )
            for left in (0, 2)
        ]
        for top in (0, 2)
    ]
    upper, lower = (tf.concat([left, right[:, 1:]], axis=1) for left, right in corners)
    return tf.concat([upper, lower[1:]], axis=0)


class FusedAdamW(keras.optimizers.AdamW):
    """AdamW (Loshchilov and Hutter 2019) in TensorFlow's fused kernel instead of a dozen Keras operations a weight.

    The graph of a step is made sooner, by seconds for a ResNet18; the step takes about as long. Sparse gradients and
    AMSGrad, which the kernel lacks, are left to Keras.
    """

    def update_step(self, gradient, variable, learning_rate):
        """Update a weight, given its gradient."""
        if self.amsgrad or isinstance(gradient, tf.IndexedSlices) or variable.dtype != tf.float32:
            super().update_step(gradient, variable, learning_rate)
            return
        index = self._get_variable_index(variable)
        step = tf.cast(self.iterations + 1, tf.float32)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.pow(self.beta_1, step),
            beta2_power=tf.pow(self.beta_2, step),
            lr=tf.cast(learning_rate, tf.float32),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=tf.cast(gradient, tf.float32),
        )

    def _all_reduce_sum_gradients(self, grads_and_vars):
        # TensorFlow never forgets a graph that sums over devices: each trained model would stay in memory for good.
        alone = self._distribution_strategy.num_replicas_in_sync == 1
        return grads_and_vars if alone else super()._all_reduce_sum_gradients(grads_and_vars)

    def _update_model_variables_moving_average(self, trainable_variables):
        if self.use_ema:
            is_first = tf.cast(tf.equal(self.iterations, 0), tf.float32)  # the average begins with the first weights
            share = tf.maximum(is_first, 1 - self.ema_momentum)
            for variable, average in zip(trainable_variables, self._model_variables_moving_average, strict=True):
                average.assign_add(share * (variable - average))


FUSED_LAYERS = {
    "BatchNormalization": FusedBatchNormalization,
    "DepthwiseConv2D": FusedDepthwiseConv2D,
    "Normalization": FusedNormalization,
}
# Keras writes module and name of a class into the saved file: with these names it opens in plain Keras.
for _name, _class in {**FUSED_LAYERS, "AdamW": FusedAdamW}.items():
    _class.__name__ = _class.__qualname__ = _name
    _class.__module__ = "keras.optimizers" if _class is FusedAdamW else "keras.layers"


def fuse(model):
    """Copy a functional or sequential model as a functional one, its plain Keras layers replaced by the fused ones.

    Weights and outputs are the same. A model that has nothing to fuse is returned itself.
    """
    from helpers.training.surgery import copy_model  # here only: surgery imports this module

    fused_kinds = {getattr(layers, name): kind for name, kind in FUSED_LAYERS.items()}
    if not any(type(layer) in fused_kinds for layer in list_layers(model)):
        return model

    def replace(layer):
        return fused_kinds[type(layer)].from_config(layer.get_config()) if type(layer) in fused_kinds else None

    functional = keras.Model(model.inputs[0], model.outputs[0]) if isinstance(model, keras.Sequential) else model
    return copy_model(functional, model.name, replace=replace)


def list_layers(model):
    """List the layers of a model and of the models within it."""
    return [inner for layer in model.layers for inner in (list_layers(layer) if hasattr(layer, "layers") else [layer])]


@contextmanager
def computing_maps_in(model, precision):
    """Compute the maps of a model in "mixed_bfloat16" in the block; any other precision leaves its layers as they are.

    Maps are what the layers from the first convolution on give out, as long as it has a height and a width.
    """
    steps = [layer for layer in list_layers(model) if isinstance(layer, layers.Layer)]
    first = next((number for number, layer in enumerate(steps) if hasattr(layer, "kernel")), len(steps))
    map_layers = [layer for layer in steps[first:] if len(layer.output.shape) == 4]
    policies = {layer: layer.dtype_policy for layer in map_layers if precision == "mixed_bfloat16"}
    try:
        for layer in policies:
            layer.dtype_policy = precision
        yield
    finally:
        for layer, policy in policies.items():
            layer.dtype_policy = policy


def set_precision(precision="auto"):
    """Choose the arithmetic of the layers built from now on; return the name of the Keras dtype policy now in force.

    ``precision`` is "float32", "mixed_bfloat16", "mixed_float16" (in which weights stay float32) or "auto", which takes
    what the hardware multiplies fast: on processors with AMX or AVX-512 BF16 mixed_bfloat16; on Nvidia's GPUs
    mixed_bfloat16 from compute capability 8.0 on (Ampere) and mixed_float16 from 7.0 on (Volta, Turing), the oldest of
    several deciding; elsewhere float32.
    """
    if precision == "auto":
        precision = _find_fast_precision()
    keras.config.set_dtype_policy(precision)
    return precision


def use_all_gpus(devices=None):
    """Train the models built from now on on several GPUs at once, if there are several; return how many.

    Each step's batch is divided among them and the gradients are summed (``tf.distribute.MirroredStrategy``); batch
    normalization takes the statistics of each part by itself. ``devices`` is a list of names such as "GPU:0", by
    default all GPUs that TensorFlow sees.
    """
    devices = devices or [f"GPU:{number}" for number in range(len(tf.config.list_physical_devices("GPU")))]
    if len(devices) > 1:
        tf.distribute.experimental_set_strategy(tf.distribute.MirroredStrategy(devices))
    return max(len(devices), 1)


def set_seed(seed):
    """Seed the initial weights of the networks built from now on (and Python's and NumPy's global state)."""
    keras.utils.set_random_seed(seed)


def predict_probabilities(model, images, rows=None, views=1, batch_size=None):
    """Predict class probabilities in the order of the images: float32 array (m, n_classes).

    Parameters
    ----------
    images : array (n, height, width, channels)
        Raw pixels; may be memory-mapped, only two batches at a time are read.
    rows : array of int (m,), optional
        The images to predict; all by default.
    views : {1, 4, 8}
        Test-time augmentation, for images without up and down, left and right: over how many views of each image the
        probabilities are averaged. 4 are the image and its mirror images, 8 also these turned by 90 degrees. Other
        numbers, and 8 of images that are not square, are a ValueError.
    batch_size : int, optional
        By default as many images as make about a million pixels.
    """
    return predict_views(model, images, rows, views, batch_size).mean(axis=0)


def predict_with_features(model, images, rows=None, views=1, batch_size=None):
    """Predict as `predict_probabilities` does, and give the features of the images as they are, from the same pass.

    Return float32 arrays (m, n_classes) and (m, n_features); see `helpers.training.surgery.expose_features`.
    """
    outputs, features = _predict(model, images, rows, views, batch_size, with_features=True)
    return outputs.mean(axis=0), features[0]


def predict_views(model, images, rows=None, views=1, batch_size=None):
    """Predict as `predict_probabilities` does, without averaging: float32 array (views, m, n_outputs)."""
    return _predict(model, images, rows, views, batch_size)[0]


def _predict(model, images, rows, views, batch_size, with_features=False):
    """Predict all views and, if asked, the features of the first one: arrays (views, m, k)."""
    rows = np.arange(len(images)) if rows is None else np.asarray(rows)
    batch_size = batch_size or int(np.clip(2**20 // np.prod(images.shape[1:3]), 16, 256))
    dtype = "uint8" if images.dtype == np.uint8 else "float32"  # bytes are a quarter to copy
    graph = _trace_prediction(model, dtype, with_features)
    kept = zip((views, 1), graph.outputs, strict=False)
    arrays = [np.empty((count, len(rows), tensor.shape[-1]), "float32") for count, tensor in kept]

    def predict(start):
        batch = np.asarray(images[rows[start : start + batch_size]], dtype)
        release_pages(images)
        for number, view in enumerate(list_views(batch, views)):
            for array, tensor in zip(arrays, graph(tf.constant(view)), strict=True):
                if number < len(array):
                    array[number, start : start + batch_size] = tensor.numpy()
        return len(batch)

    starts = range(0, len(rows), batch_size)
    if len(starts) > 1:  # starting threads would slow a single image down by almost half
        # One batch is computed while the other is read.
        with ThreadPoolExecutor(2) as pool, open_stage(f"computing the output of {model.name}", len(rows)) as stage:
            for count in pool.map(predict, starts):
                stage.update(count)
    else:
        list(map(predict, starts))
    return arrays


def _trace_prediction(model, dtype, with_features):
    """Trace a model once for batches of any size; Keras's predict_on_batch traces again for the last, smaller one."""
    from helpers.training.surgery import expose_features  # here only: surgery imports this module

    graphs = model.__dict__.setdefault("prediction_graphs", {})  # set as an attribute, Keras would track them
    changeable = "activation", "compute_dtype"
    parts = [(layer, *(getattr(layer, name, None) for name in changeable)) for layer in list_layers(model)]
    key = dtype, with_features, *parts
    if key not in graphs:
        network = expose_features(model) if with_features else model

        @tf.function(input_signature=[tf.TensorSpec((None, *model.input_shape[1:]), dtype)])
        def predict(batch):
            return tf.nest.flatten(network(tf.cast(batch, "float32"), training=False))

        graphs[key] = graph = predict.get_concrete_function()
        for tensor in (tensor for operation in graph.graph.get_operations() for tensor in operation.outputs):
            if tensor.shape.rank and tensor.shape[0] is None:
                check_values(tensor.shape)  # a model of others may enlarge an image without end
    return graphs[key]


def list_views(images, views, transpose=np.transpose):
    """List the views of images, given as array or tensor: see `predict_probabilities`."""
    if views not in (1, 4, 8) or (views == 8 and images.shape[1] != images.shape[2]):
        raise ValueError(f"views={views} of images {images.shape[1:3]}: expected 1, 4, or for square images 8.")
    if views == 1:
        return [images]
    mirrored = [images, images[:, :, ::-1], images[:, ::-1], images[:, ::-1, ::-1]]
    return mirrored + [transpose(view, (0, 2, 1, 3)) for view in mirrored if views == 8]


def _find_fast_precision():
    if gpus := tf.config.list_physical_devices("GPU"):
        details = map(tf.config.experimental.get_device_details, gpus)
        capability = min(gpu.get("compute_capability", (0, 0)) for gpu in details)
        return "mixed_bfloat16" if capability >= (8, 0) else "mixed_float16" if capability >= (7, 0) else "float32"
    return "mixed_bfloat16" if list_bfloat16_units() else "float32"
