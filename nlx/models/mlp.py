"""Dense layers with ReLU, for feature vectors and small images."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from nlx.models.head import Dropout, Head, Outputs

AMT_WIDTHS = (1024, 30)
"""Hidden widths that CAN uses on the 5,376 features of the AMT set: 5376 -> 1024 -> 30 -> K."""


class MLP(nnx.Module):
    """Dense layers with ReLU between them; images are flattened.

    Args:
      in_features: number of values in one input.
      num_classes: K.
      widths: width of each hidden layer; none gives a linear classifier.
      dropout: probability that a hidden value becomes 0 while training.
      dtype: dtype of the hidden layers' computation; weights and outputs are float32.
      rngs: where the initial weights come from.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        widths: Sequence[int] = (512, 512),
        dropout: float = 0.0,
        dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.dtype = dtype
        self.num_hidden = len(widths)
        self.dropout = Dropout(dropout)
        he_normal = nnx.initializers.he_normal()
        # Named attributes rather than a list: they are the keys of the parameter dict, and checkpoints want strings.
        for i, width in enumerate(widths):
            setattr(self, f"hidden_{i}", nnx.Linear(in_features, width, kernel_init=he_normal, dtype=dtype, rngs=rngs))
            in_features = width
        # Of the raw inputs of a linear classifier nothing is dropped.
        self.head = Head(in_features, num_classes, dropout=dropout if widths else 0.0, rngs=rngs)

    def __call__(self, x: jax.Array, key: jax.Array | None = None) -> Outputs:
        """Map ``[B, ...]`` to ``{'logits': [B, K], 'features': [B, F]}``; ``key`` is for dropout while training."""
        x = x.reshape(x.shape[0], -1).astype(self.dtype)
        for i in range(self.num_hidden):
            if i > 0:
                x = self.dropout(x, key, layer=i)
            x = nnx.relu(getattr(self, f"hidden_{i}")(x))
        return self.head(x, key, layer=self.num_hidden)
