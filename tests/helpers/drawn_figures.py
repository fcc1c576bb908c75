"""What a figure holds, apart from how its pixels are drawn."""

from matplotlib.figure import Figure


def drawn_by(monkeypatch, draw, *args, **options):
    """Calls a function that draws; returns the figure that it saves, after a look at its axes.

    Every one lies within the figure, and something is drawn or written in those that are visible.
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
        assert axes.has_data() or axes.texts or not axes.axison, axes
    return figure


def pixels_of(axes):
    """Returns the pixels of the only image of some axes."""
    [image] = axes.get_images()
    return image.get_array()
