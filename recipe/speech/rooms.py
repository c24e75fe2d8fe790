"""Responses of made-up rooms: what a microphone some way off hears of a mouth.

A shoebox room: first the direct path and the early reflections, each in its place (image method,
Allen and Berkley 1979), then noise that dies away as fast as the walls take the sound, the high
part sooner than the low. The tail is as loud as all its reflections would be, which follows from
their density; so distance alone makes a voice drown in its room.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RATE = 16_000  # Hz
SOUND = 343.0  # metres a second
SABINE = 0.161  # seconds a metre: Eyring's formula, at 20 degrees
ORDER = 3  # images on each side along an axis; they hold all that comes in the first MIXED seconds
MIXED = 0.02  # seconds after the direct sound: then reflections are too many to tell apart
SPLIT = 2000.0  # Hz; above it walls and air take more
HIGH = 0.6  # of the decay time, above SPLIT
LOWEST, HIGHEST = (2.6, 2.4, 2.3), (8.0, 6.0, 3.2)  # metres: length, width, height
WALL = 0.3  # metres that nobody is nearer to a wall


@dataclass(frozen=True)
class Room:
    """A room, and where in it one speaks and hears. Lengths in metres, time in seconds."""

    size: NDArray[np.float64]
    mouth: NDArray[np.float64]
    microphone: NDArray[np.float64]
    decay: float  # to -60 dB


def draw_room(rng: np.random.Generator, distance: float, decay: float) -> Room:
    """A room in which the microphone is `distance` (at most 5 m) from the mouth."""
    for _ in range(200):
        size = rng.uniform(LOWEST, HIGHEST)
        mouth = rng.uniform(WALL, size - WALL)
        way = rng.standard_normal(3) * (1.0, 1.0, 0.3)  # nearly of one height
        microphone = mouth + distance * way / np.linalg.norm(way)
        if ((microphone > WALL) & (microphone < size - WALL)).all():
            return Room(size, mouth, microphone, decay)
    middle = np.asarray(HIGHEST) / 2
    along = np.array([distance / 2, 0.0, 0.0])
    return Room(np.asarray(HIGHEST), middle - along, middle + along, decay)


def response(room: Room, rng: np.random.Generator) -> NDArray[np.float32]:
    """float32 [samples] at 16 kHz; its first sample is the direct sound, of height 1."""
    n = int(room.decay * RATE)
    direct = float(np.linalg.norm(room.mouth - room.microphone))
    out = np.zeros(n)
    times, heights = _images(room)
    late = times - direct / SOUND
    early = (late >= 0) & (late < MIXED)
    np.add.at(out, (late[early] * RATE).astype(int), heights[early] * direct)
    out += _tail(n, room, direct, rng)
    out[0] = 1.0
    return out.astype(np.float32)


def _images(room: Room) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """When each image is heard, in seconds, and how high, with 1 at one metre."""
    walls = 2 * (room.size[[0, 1, 2]] * room.size[[1, 2, 0]]).sum()
    taken = 1 - np.exp(-SABINE * room.size.prod() / (walls * room.decay))  # Eyring
    kept = np.sqrt(1 - taken)
    number = np.arange(-ORDER, ORDER + 1)
    places, bounces = [], []
    for axis in range(3):
        for side in (0, 1):  # the mouth, and its mirror image
            mouth = room.mouth[axis] * (1 - 2 * side)
            places.append(2 * number * room.size[axis] + mouth - room.microphone[axis])
            bounces.append(np.abs(2 * number - side))
    xs, ys, zs = (np.concatenate(places[2 * axis : 2 * axis + 2]) for axis in range(3))
    bx, by, bz = (np.concatenate(bounces[2 * axis : 2 * axis + 2]) for axis in range(3))
    away = np.sqrt(xs[:, None, None] ** 2 + ys[:, None] ** 2 + zs**2).ravel()
    count = (bx[:, None, None] + by[:, None] + bz).ravel()
    return away / SOUND, kept**count / away


def _tail(n: int, room: Room, direct: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Noise in two bands; energy 4 pi c / V a second at first, of a source that has 1 at 1 m."""
    noise = rng.standard_normal(n)
    spectrum = np.fft.rfft(noise)
    low = np.fft.irfft(spectrum * (np.fft.rfftfreq(n, 1 / RATE) < SPLIT), n)
    seconds = np.arange(n) / RATE + direct / SOUND
    height = direct * np.sqrt(4 * np.pi * SOUND / (room.size.prod() * RATE))
    out = low * 10 ** (-3 * seconds / room.decay)
    out += (noise - low) * 10 ** (-3 * seconds / (HIGH * room.decay))
    out[: int(MIXED * RATE)] = 0
    return np.asarray(height * out)


def reverberate(wave: NDArray[np.float32], heard: NDArray[np.float32]) -> NDArray[np.float32]:
    """`wave` through the response `heard`; as long as `wave`, the direct sound in its place."""
    size = 1 << int(np.ceil(np.log2(len(wave) + len(heard))))
    wet = np.fft.irfft(np.fft.rfft(wave, size) * np.fft.rfft(heard, size), size)[: len(wave)]
    return wet.astype(np.float32)
