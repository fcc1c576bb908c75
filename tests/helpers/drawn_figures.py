"""What a figure holds, apart from how its pixels are drawn."""

import itertools

from matplotlib.figure import Figure


def drawn_by(monkeypatch, draw, *args, **options):
    """Calls a function that draws; returns the figure that it saves, after a look at its axes.

    Every one lies within the figure, and something is drawn or written in those that are visible.
    No text is cut off, and captions and titles lie over nothing else.
    """
    saved = []
    save = Figure.savefig

    def keep(figure, *args, **options):
        saved.append(figure)
        save(figure, *args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Figure, "savefig", keep)
        draw(*args, **options)
    [figure] = saved
    for axes in figure.axes:
        place = axes.get_position()
        assert -0.001 <= place.x0 < place.x1 <= 1.001, (axes, place)
        assert -0.001 <= place.y0 < place.y1 <= 1.001, (axes, place)
        assert axes.has_data() or axes.texts or axes.child_axes or not axes.axison, axes
    check_texts(figure)
    return figure


def check_texts(figure):
    """Compares where the texts of a figure are with its edges, and with each other."""
    # The places are those of the last drawing, which had another resolution.
    figure.draw_without_rendering()
    whole = figure.bbox.padded(1)
    around = [one for axes in figure.axes if (one := axes.get_tightbbox()) is not None]
    captions = [
        (one.get_text(), one.get_window_extent())
        for one in [*figure.texts, *figure.legends]
        if hasattr(one, "get_text") and one.get_text()
    ]
    for name, box in [*captions, *((axes, axes.get_tightbbox()) for axes in figure.axes)]:
        if box is not None:
            assert whole.x0 <= box.x0 and box.x1 <= whole.x1, (name, box, whole)
            assert whole.y0 <= box.y0 and box.y1 <= whole.y1, (name, box, whole)
    for name, box in captions:
        for other in around:
            assert not box.overlaps(other.padded(-1)), (name, box, other)
    titles = [
        (axes.get_title(), axes.title.get_window_extent())
        for axes in figure.axes
        if axes.get_title()
    ]
    for (name, box), (other, place) in itertools.combinations(titles, 2):
        assert not box.overlaps(place), (name, other)


def pixels_of(axes):
    """Returns the pixels of the only image of some axes."""
    [image] = axes.get_images()
    return image.get_array()
