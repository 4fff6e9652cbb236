"""Picture of a timeline: a head that moves, blinks and speaks, drawn as shaded polygons.

Geometry is in face units with the origin between nose and eyes, x to the image's right and y down: the eyes are near
y = -33, the mouth near y = 57 and the chin near y = 112. A similarity transform per frame brings them to pixels.
Dims: T frames, N vertices.
"""

from __future__ import annotations

import cv2
import numpy as np

from data_prep.synthesis.character import Manner, Speaker
from data_prep.synthesis.draws import wander
from data_prep.synthesis.language import INVENTORY, Timeline, coarticulate
from mmpretrain.records import FRAME_RATE_HZ

SIZE = 128  # side of the picture in pixels
PIXELS_PER_UNIT = 0.44
SUBPIXEL_BITS = 4


def draw(line: Timeline, speaker: Speaker, manner: Manner, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Frames, uint8 grey [T, 128, 128], and nine points, float32 [T, 9, 2] (x, y in pixels).

    The points: outer and inner corner of the right eye (left in the image), inner and outer corner of the left eye,
    nose base, right and left corner of the mouth, middle of the upper and of the lower lip's outer edge.
    """
    num_frames = line.num_frames
    matrix_T22, shift_T2 = _head_motion(num_frames, manner, rng)
    turn_T2 = wander(rng, num_frames, 2, 25) * (4.0, 3.0) * max(0.3, 1.0 + manner.motion)
    lips = _lips(line, speaker, manner)
    blink_T = _blinks(num_frames, rng)

    shapes = _body(num_frames, speaker, lips["jaw_T"])
    features, anchors = [], []
    for side in (-1, 1):
        eye, corners = _eye(side, num_frames, speaker, manner, blink_T)
        features += eye
        anchors += corners if side < 0 else corners[::-1]
    nose, nose_base = _nose(num_frames, speaker)
    mouth, mouth_points = _mouth(speaker, lips)
    features += nose + mouth
    points_T92 = np.stack([*anchors, nose_base, *mouth_points], axis=1) + turn_T2[:, None]
    # Turning the head moves what is in its middle against its outline.
    shapes += [(polygon + turn_T2[:, None], shade) for polygon, shade in features]

    def to_pixels(polygon):
        return np.einsum("tij,tnj->tni", matrix_T22, polygon) + shift_T2[:, None]

    shapes = [(to_pixels(polygon), shade) for polygon, shade in shapes]
    frames = _light(_paint(shapes, _background(speaker, rng)), rng)
    return frames, to_pixels(points_T92).astype(np.float32)


def _head_motion(num_frames: int, manner: Manner, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rotation and scale [T, 2, 2] and shift [T, 2] from face units to pixels: the clip's pose, and movement."""
    x, y, tilt, size = (wander(rng, num_frames, 4, 30) * max(0.3, 1.0 + manner.motion)).T
    angle_T = np.deg2rad(rng.normal(0.0, 3.0) + 2.0 * tilt)
    scale_T = PIXELS_PER_UNIT * rng.uniform(0.92, 1.06) * (1.0 + 0.012 * size)
    cos, sin = scale_T * np.cos(angle_T), scale_T * np.sin(angle_T)
    matrix_T22 = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], 1)
    centre = SIZE / 2 + rng.uniform(-3.0, 3.0, 2)
    return matrix_T22, centre + 1.2 * np.stack([x, y], 1)


def _blinks(num_frames: int, rng: np.random.Generator) -> np.ndarray:
    """How far the lids are closed [T]: short blinks about every 2.5 seconds."""
    start_T = rng.random(num_frames) < 1.0 / (2.5 * FRAME_RATE_HZ)
    return np.minimum(np.convolve(start_T, [0.5, 1.0, 0.8, 0.3])[:num_frames], 1.0)


def _lips(line: Timeline, speaker: Speaker, manner: Manner) -> dict[str, np.ndarray]:
    """Gap between the lips, half width of the mouth, teeth shown, lip thickness, lift of the corners, jaw drop; [T]."""
    hold_K = np.array([unit.hold for unit in INVENTORY])[line.unit_K]

    def track(field):
        target_K = np.array([getattr(unit, field) for unit in INVENTORY])[line.unit_K]
        return coarticulate(target_K, hold_K, 13)[2::4]

    opening_T, spread_T = track("opening"), track("spread")
    clear = speaker.articulation * (1.0 + 0.05 * manner.punch_db)
    return {
        "gap_T": 27.0 * clear * np.maximum(opening_T - 0.04, 0.0),
        "width_T": speaker.mouth_width * (29.0 + 5.0 * clear * spread_T + 4.0 * np.minimum(spread_T, 0.0))
        + 0.4 * manner.corners,
        "teeth_T": track("teeth"),
        "thick_T": speaker.lip_thickness * (7.5 - 1.5 * spread_T),
        "lift_T": np.full(line.num_frames, manner.corners + speaker.corner_rest),
        "jaw_T": 14.0 * clear * opening_T,
    }


def _band(x: np.ndarray, top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """The polygon [T, 2 N, 2] between two curves over the same x; all [T, N]."""
    upper, lower = np.stack([x, top], -1), np.stack([x, bottom], -1)
    return np.concatenate([upper, lower[:, ::-1]], axis=1)


def _body(num_frames: int, speaker: Speaker, jaw_T: np.ndarray) -> list:
    """Shoulders, neck, hair and the outline of the face, back to front."""
    angle_N = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    circle = np.stack([np.cos(angle_N), np.sin(angle_N)], -1)
    hair_N2 = circle * (98.0 * speaker.face_width, 118.0 * speaker.face_height) + (0.0, -14.0)
    face_N2 = circle * (84.0 * speaker.face_width, 108.0 * speaker.face_height) + (0.0, 6.0)
    face_N2[:, 0] *= 1.0 - 0.16 * np.maximum(circle[:, 1], 0.0) ** 2  # the chin is narrower than the brow
    face_TN2 = np.tile(face_N2, (num_frames, 1, 1))
    face_TN2[:, :, 1] += 0.6 * jaw_T[:, None] * np.maximum(circle[:, 1], 0.0) ** 2
    face_TN2[:, :, 1] = np.maximum(face_TN2[:, :, 1], -88.0 * speaker.face_height)  # hairline
    shoulders = np.array(
        [[-40.0, 80], [40, 80], [42, 118], [150, 150], [150, 240], [-150, 240], [-150, 150], [-42, 118]]
    )
    return [
        (np.tile(hair_N2, (num_frames, 1, 1)), speaker.hair),
        (np.tile(shoulders, (num_frames, 1, 1)), 0.72 * speaker.skin),
        (face_TN2, speaker.skin),
    ]


def _eye(side: int, num_frames: int, speaker: Speaker, manner: Manner, blink_T: np.ndarray) -> tuple[list, list]:
    """Shapes of one eye and brow; the eye's outer and inner corner, each [T, 2]. side: -1 for the image's left."""
    inner, outer = 19.0 + speaker.eye_spacing, 50.0 + speaker.eye_spacing
    along_N = np.linspace(0.0, 1.0, 9)  # from the inner to the outer corner
    x_TN = np.tile(side * (inner + (outer - inner) * along_N), (num_frames, 1))
    arch_N = 4.0 * along_N * (1.0 - along_N)
    wide_T = (8.5 * speaker.eye_size + manner.eyes) * (1.0 - blink_T)
    upper_TN = -33.0 - wide_T[:, None] * arch_N
    lower_TN = -33.0 + 5.0 * speaker.eye_size * arch_N * (1.0 - 0.4 * blink_T[:, None])
    upper_TN = np.minimum(upper_TN, lower_TN - 0.5)

    iris_N = np.linspace(-1.0, 1.0, 9)
    iris_x_TN = np.tile(side * (inner + outer) / 2 + 7.0 * iris_N, (num_frames, 1))
    round_N = 7.5 * np.sqrt(1.0 - iris_N**2)
    lid_N = side * iris_x_TN[0]

    def at_iris(curve_TN):
        return np.stack([np.interp(lid_N, inner + (outer - inner) * along_N, curve) for curve in curve_TN])

    iris_top_TN = np.maximum(-35.0 - round_N, at_iris(upper_TN))
    iris_bottom_TN = np.maximum(np.minimum(-35.0 + round_N, at_iris(lower_TN)), iris_top_TN)

    brow_x_TN = np.tile(side * (inner - 5.0 + (outer - inner + 12.0) * along_N), (num_frames, 1))
    brow_y_N = -54.0 + speaker.brow_height - manner.brow_raise - 4.0 * arch_N
    brow_y_N = brow_y_N - (manner.brow_slant + speaker.brow_rest) * (1.0 - 2.0 * along_N)
    half_N = speaker.brow_thickness * (0.55 - 0.25 * along_N)
    brow_TN = np.tile(brow_y_N, (num_frames, 1))
    shapes = [
        (_band(x_TN, upper_TN, lower_TN), min(245.0, speaker.skin + 45.0)),
        (_band(iris_x_TN, iris_top_TN, iris_bottom_TN), 40.0),
        (_band(x_TN, upper_TN - 1.5, upper_TN + 1.0), 0.4 * speaker.skin),
        (_band(brow_x_TN, brow_TN - half_N, brow_TN + half_N), 0.8 * speaker.hair + 0.1 * speaker.skin),
    ]
    corners = [np.tile([side * x, -33.0], (num_frames, 1)) for x in (outer, inner)]
    return shapes, corners


def _nose(num_frames: int, speaker: Speaker) -> tuple[list, np.ndarray]:
    """A shaded side, a base line with nostrils, and the nose base [T, 2]."""
    w = 13.0 * speaker.nose_width
    side = np.array([[3.0, -30], [7, -30], [w, 15], [w - 4, 20], [4, 12]])
    base = np.array([[-w, 16.0], [-5, 19], [0, 21], [5, 19], [w, 16], [w - 3, 21], [0, 25], [3 - w, 21]])
    shapes = [
        (np.tile(side, (num_frames, 1, 1)), 0.88 * speaker.skin),
        (np.tile(base, (num_frames, 1, 1)), 0.66 * speaker.skin),
    ]
    return shapes, np.tile([0.0, 22.0], (num_frames, 1))


def _mouth(speaker: Speaker, lips: dict[str, np.ndarray]) -> tuple[list, list]:
    """Lips, the dark between them, teeth; and right corner, left corner, upper lip, lower lip, each [T, 2]."""
    gap, width, teeth, thick, lift, jaw = (
        lips[name][:, None] for name in ("gap_T", "width_T", "teeth_T", "thick_T", "lift_T", "jaw_T")
    )
    along_N = np.linspace(-1.0, 1.0, 15)
    arch_N = 1.0 - along_N**2
    # Corners move by `lift` about the middle of the closed mouth; the lower lip goes down with the jaw, the upper
    # lip rises a little.
    line_TN = 57.0 + speaker.mouth_drop - lift * (along_N**2 - 0.3) + 0.25 * jaw
    inner_top_TN = line_TN - 0.3 * gap * arch_N
    inner_bottom_TN = line_TN + 0.7 * gap * arch_N
    top_TN = inner_top_TN - thick * arch_N
    bottom_TN = inner_bottom_TN + 1.2 * thick * arch_N
    x_TN = width * along_N
    inner_x_TN = 0.9 * x_TN
    teeth_bottom_TN = np.minimum(inner_top_TN + 7.0 * teeth, inner_bottom_TN)
    # A polygon without height is still drawn as a line, so teeth that hardly show are dark like the gap.
    shown_T = np.clip((teeth_bottom_TN - inner_top_TN).max(axis=1) / 3.0, 0.0, 1.0)
    shapes = [
        (_band(x_TN, top_TN, bottom_TN), speaker.skin - speaker.lip),
        (_band(inner_x_TN, inner_top_TN - 0.9, inner_bottom_TN + 0.9), 35.0),
        (_band(0.8 * x_TN, inner_top_TN, teeth_bottom_TN), 35.0 + 180.0 * shown_T),
    ]
    middle = len(along_N) // 2
    points = [np.stack([x_TN[:, n], line_TN[:, n]], -1) for n in (0, -1)]
    points += [np.stack([x_TN[:, middle], curve_TN[:, middle]], -1) for curve_TN in (top_TN, bottom_TN)]
    return shapes, points


def _background(speaker: Speaker, rng: np.random.Generator) -> np.ndarray:
    """A blurred wall, float32 [128, 128]."""
    coarse = rng.uniform(40, 200) + 25.0 * rng.standard_normal((4, 4))
    return np.clip(cv2.resize(coarse.astype(np.float32), (SIZE, SIZE), interpolation=cv2.INTER_CUBIC), 0, 255)


def _paint(shapes: list, background: np.ndarray) -> np.ndarray:
    """Fills the polygons, (vertices [T, N, 2] in pixels, shade or shades [T]), back to front; uint8 [T, 128, 128]."""
    num_frames = len(shapes[0][0])
    frames = np.tile(background.astype(np.uint8), (num_frames, 1, 1))
    fixed = [
        (np.round(polygon * 2**SUBPIXEL_BITS).astype(np.int32), np.broadcast_to(shade, num_frames).tolist())
        for polygon, shade in shapes
    ]
    for t, frame in enumerate(frames):
        for polygon, shade in fixed:
            cv2.fillPoly(frame, [polygon[t]], shade[t], lineType=cv2.LINE_AA, shift=SUBPIXEL_BITS)
        cv2.GaussianBlur(frame, (3, 3), 0.6, dst=frame)
    return frames


def _light(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lights the scene from a side that is the clip's own, changes the light slowly, and adds the camera's noise."""
    num_frames = len(frames)
    side = rng.normal(0.0, 0.10, 2)
    ramp = np.linspace(-1.0, 1.0, SIZE, dtype=np.float32)
    plane = 1.0 + side[0] * ramp + side[1] * ramp[:, None]
    gain_T = rng.uniform(0.75, 1.1) * (1.0 + 0.03 * wander(rng, num_frames, 1, 40)[:, 0])
    # Frames see different windows of one plate of noise, which is much cheaper than noise of their own.
    plate = rng.normal(0.0, rng.uniform(2.0, 6.0), (2 * SIZE, 2 * SIZE)).astype(np.float32)
    at_T2 = rng.integers(0, SIZE, (num_frames, 2))
    lit = np.empty_like(frames)
    for t, (row, column) in enumerate(at_T2):
        picture = frames[t] * (plane * np.float32(gain_T[t])) + plate[row : row + SIZE, column : column + SIZE]
        lit[t] = np.clip(picture + 0.5, 0, 255)
    return lit
