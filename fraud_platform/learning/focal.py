"""Focal loss: easy rows weigh less, by a power of how far off they are; exact derivatives for boosting.

Lin, Goyal, Girshick, He and Dollar, "Focal Loss for Dense Object Detection", 2017, without its class weight:
of the true class's probability q, the loss is -(1 - q)^gamma log q.
"""

from __future__ import annotations

import numpy as np

GAMMA = 2.0
_LEAST = 1e-15


def focal_loss(margin: np.ndarray, is_fraud: np.ndarray, gamma: float = GAMMA) -> np.ndarray:
    """Loss of log-odds `margin` (n,): float64 (n,)."""
    right, wrong = _of_truth(margin, is_fraud)
    return -(wrong**gamma) * np.log(right)


def focal_gradient(margin: np.ndarray, is_fraud: np.ndarray, gamma: float = GAMMA) -> np.ndarray:
    """First derivative of `focal_loss` by the margin: float64 (n,)."""
    right, wrong = _of_truth(margin, is_fraud)
    return _sign(is_fraud) * wrong**gamma * (gamma * right * np.log(right) - wrong)


def focal_hessian(margin: np.ndarray, is_fraud: np.ndarray, gamma: float = GAMMA) -> np.ndarray:
    """Second derivative of `focal_loss` by the margin: float64 (n,). Negative where a row is far off."""
    right, wrong = _of_truth(margin, is_fraud)
    inner = wrong * (2.0 * gamma + 1.0) + gamma * np.log(right) * (wrong - gamma * right)
    return right * wrong**gamma * inner


def focal_curvature(margin: np.ndarray, is_fraud: np.ndarray, gamma: float = GAMMA) -> np.ndarray:
    """What Newton's step divides by, above 0: float64 (n,).

    The second derivative, but at least that of the logistic loss under the row's focal weight: the focal loss
    is not convex, and a negative curvature would send a missed fraud the wrong way.
    """
    right, wrong = _of_truth(margin, is_fraud)
    return np.maximum(
        focal_hessian(margin, is_fraud, gamma), np.maximum(wrong**gamma * right * wrong, _LEAST)
    )


def _of_truth(margin: np.ndarray, is_fraud: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of the true class and of the other one, each (n,), away from 0."""
    toward = _sign(is_fraud) * np.asarray(margin, dtype=np.float64)
    right, wrong = (1.0 / (1.0 + np.exp(-np.clip(m, -500.0, 500.0))) for m in (toward, -toward))
    return np.maximum(right, _LEAST), np.maximum(wrong, _LEAST)


def _sign(is_fraud: np.ndarray) -> np.ndarray:
    return np.where(np.asarray(is_fraud, dtype=bool), 1.0, -1.0)
