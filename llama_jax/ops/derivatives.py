"""Which derivatives programs have: gradients, by backward passes written for speed, or derivatives of every order and mode."""

from contextlib import AbstractContextManager

import jax

_every = jax.make_user_context(False)  # part of jit's cache key, so that nothing compiled outside is used inside


def every_derivative() -> AbstractContextManager[None]:
    """Context in which models and losses have derivatives of every order and mode: `jax.jvp`, `jax.hessian`, `jax.jacfwd`.

    Elsewhere matrix products, attention and the loss bring backward passes of their own, which are faster and keep weight
    gradients in float32 where weights are multiplied in bfloat16, but which serve `jax.grad` and `jax.vjp` alone: jax raises a
    TypeError about a custom_vjp function where forward mode meets one. In this context jax differentiates them itself, attention
    is the reference backend, which stores T x T weights, and other backends are refused.

        with llama_jax.every_derivative():
            product = jax.jvp(jax.grad(loss), (params,), (vector,))[1]  # Hessian times vector
    """
    return _every(True)


def only_gradients() -> bool:
    """Whether gradients are the only derivatives that are asked for: everywhere outside of `every_derivative`."""
    return not _every.value
