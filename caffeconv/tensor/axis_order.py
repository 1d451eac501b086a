"""Where a blob's values lie in a net that keeps channels last, against where Caffe has them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from caffeconv.tensor.shape import Shape, count


@dataclass(frozen=True)
class Segment:
    """A run of values that Caffe lays out as `shape`, and that lies there with axis `lead` moved to the end."""

    shape: Shape
    lead: int = 0

    @property
    def axes(self) -> tuple[int, ...]:
        """The transposition: Caffe's axes in their new order."""
        rank = len(self.shape)
        return (*range(self.lead), *range(self.lead + 1, rank), self.lead)

    @property
    def size(self) -> int:
        return count(self.shape)

    @property
    def stays(self) -> bool:
        """Whether the values keep their order."""
        return self.shape[self.lead] == 1 or count(self.shape, self.lead + 1) == 1

    def __str__(self) -> str:
        """As Caffe has it: ``512·7·7``."""
        return "·".join(map(str, self.shape))

    @property
    def moved(self) -> str:
        """As it lies there: ``7·7·512``."""
        return "·".join(str(self.shape[axis]) for axis in self.axes)


@dataclass(frozen=True)
class AxisOrder:
    """How a net that keeps channels last holds a blob of Caffe's `shape`.

    The first `lead` axes stay (N; of recurrent layers T and N). What follows is one item, channels × spatial axes, and
    is held as spatial axes × channels. Where the item is one axis only, it may be a flattening of such items:
    `pieces` then says what lies along it, one after the other.
    """

    shape: Shape
    lead: int
    pieces: tuple[Segment, ...] = ()

    @property
    def item(self) -> Shape:
        return self.shape[self.lead :]

    @property
    def axes(self) -> tuple[int, ...]:
        """Caffe's axes in the order in which they are held."""
        return Segment(self.shape, self.lead).axes if len(self.item) > 1 else tuple(range(len(self.shape)))

    @property
    def held_shape(self) -> Shape:
        """The shape in which it is held."""
        return tuple(self.shape[axis] for axis in self.axes)

    @property
    def moves(self) -> bool:
        """Whether its values lie in another order than in Caffe."""
        return not all(piece.stays for piece in self.along(self.lead))

    @property
    def is_flattening(self) -> bool:
        """Whether its last axis holds flattened items in another order than Caffe's."""
        return len(self.item) == 1 and self.moves

    def along(self, axis: int) -> tuple[Segment, ...]:
        """What lies along all axes from `axis` on, taken as one."""
        if axis >= len(self.shape):
            return (Segment((1,)),)
        if axis > self.lead:
            return (Segment((count(self.shape, axis),)),)
        if len(self.item) > 1:
            return joined([Segment(self.shape[axis:], self.lead - axis)])
        if all(piece.stays for piece in self.pieces):
            return (Segment((count(self.shape, axis),)),)
        return joined(self.pieces * count(self.shape, axis, self.lead))


def joined(pieces: Iterable[Segment]) -> tuple[Segment, ...]:
    """The same run, its parts that keep their order in one piece each."""
    segments: list[Segment] = []
    for piece in pieces:
        if not piece.stays:
            segments.append(piece)
        elif segments and segments[-1].stays:
            segments[-1] = Segment((segments[-1].size + piece.size,))
        else:
            segments.append(Segment((piece.size,)))
    return tuple(segments)


def as_caffe(shape: Shape) -> AxisOrder:
    """The blob as Caffe has it."""
    return flat(shape, [Segment(shape[-1:])]) if shape else AxisOrder((), 0)


def flat(shape: Shape, pieces: Iterable[Segment]) -> AxisOrder:
    """A blob along whose last axis `pieces` lie."""
    return AxisOrder(shape, len(shape) - 1, joined(pieces))


def channels_last(shape: Shape, lead: int = 1) -> AxisOrder:
    """A blob of images, `lead` being the axis of their channels; blobs of fewer axes stay as Caffe has them."""
    return AxisOrder(shape, lead) if len(shape) > lead + 1 else as_caffe(shape)


def usual(shape: Shape) -> AxisOrder:
    """What a blob is taken for where nothing more is known: with three axes or more, images N × C × spatial axes."""
    return channels_last(shape)


def reshaped(bottom: AxisOrder, shape: Shape) -> AxisOrder | None:
    """What the same reshape, done to the blob as it is held, gives; None where it would mix the values up."""
    if count(shape) == 0 or not shape:
        return usual(shape)
    if not bottom.moves and len(shape) <= 3:
        return as_caffe(shape)
    return next(_readings(bottom, shape), None)


def _readings(bottom: AxisOrder, shape: Shape) -> Iterator[AxisOrder]:
    before, item = bottom.shape[: bottom.lead], bottom.item
    splits = sorted(range(len(shape)), key=lambda split: abs(split - bottom.lead))
    for split in splits:  # the axes in front regrouped, the items as they were
        if count(shape[:split]) == count(before) and shape[split:] == item:
            yield replace(bottom, shape=shape, lead=split)
    for axis in range(bottom.lead, -1, -1):  # flattened from some axis on
        if count(shape[:-1]) == count(bottom.shape[:axis]):
            yield flat(shape, bottom.along(axis))
    channels = item[0] if len(item) > 1 else _one_image(bottom)
    for split in splits:  # spatial axes regrouped, or a flattened image made one again
        if channels and count(shape[:split]) == count(before) and shape[split] == channels and split + 1 < len(shape):
            yield AxisOrder(shape, split)


def _one_image(bottom: AxisOrder) -> int | None:
    """The channels of the one image that was flattened into the last axis."""
    if len(bottom.pieces) == 1 and bottom.pieces[0].lead == 0 and not bottom.pieces[0].stays:
        return bottom.pieces[0].shape[0]
    return None


def same_places(bottoms: Sequence[AxisOrder], tops: int) -> list[AxisOrder] | None:
    """The tops, each shaped as the first bottom, where each value stands where those that it is made of stand.

    None where bottoms are held in different ways, so that values that belong together do not meet.
    """
    first = bottoms[0]
    for other in bottoms[1:]:
        if other.shape == first.shape and other != first and (other.moves or first.moves):
            return None
        if other.shape != first.shape and (other.is_flattening or first.is_flattening):
            return None
    return [first] * tops


def concatenated(bottoms: Sequence[AxisOrder], axis: int, shape: Shape) -> AxisOrder | None:
    """The blobs laid one after the other along Caffe's `axis`; None where they are held in different ways."""
    first = bottoms[0]
    if any(bottom.lead != first.lead for bottom in bottoms):
        return None if any(bottom.moves for bottom in bottoms) else as_caffe(shape)
    if len(first.item) > 1:
        return AxisOrder(shape, first.lead)
    if axis == first.lead:
        return flat(shape, [piece for bottom in bottoms for piece in bottom.pieces])
    return flat(shape, first.pieces) if all(bottom.pieces == first.pieces for bottom in bottoms) else None


def sliced(bottom: AxisOrder, axis: int, shapes: Sequence[Shape]) -> list[AxisOrder] | None:
    """The blob cut along Caffe's `axis` into parts of these shapes; None where a cut would go through an image."""
    if len(bottom.item) > 1:
        return [AxisOrder(shape, bottom.lead) for shape in shapes]
    if axis < bottom.lead:
        return [flat(shape, bottom.pieces) for shape in shapes]
    waiting, parts = list(bottom.pieces), []
    for shape in shapes:
        taken = _taken(waiting, shape[axis])
        if taken is None:
            return None
        parts.append(flat(shape, taken))
    return parts


def _taken(waiting: list[Segment], size: int) -> list[Segment] | None:
    """The pieces that make up the next `size` values, taken off `waiting`."""
    taken = []
    while size:
        piece = waiting.pop(0)
        if piece.size > size:
            if not piece.stays:
                return None
            waiting.insert(0, Segment((piece.size - size,)))
            piece = Segment((size,))
        taken.append(piece)
        size -= piece.size
    return taken
