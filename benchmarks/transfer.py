"""Measure linear classifiers of many classes against liblinear, one class after the other.

Both choose C on the same held-out fifth and fit all images with it, as `cnnkit transfer` does for
each split and layer. The features are made up, above 0 as after a ReLU; `--features DIR` takes
those of `cnnkit features`, of which `--classes` classes with `--per-class` images are used. Times
that pass and CPU seconds are printed, and whether C and the decisions agree.
"""

from timing import report  # isort: skip  (quiets TensorFlow before it is imported)

import argparse
import time

import numpy as np

DIMENSION, NOISE, SEEN = 9216, 1.2, 10


def made_up(classes: int, per_class: int):
    """Return features and labels, of which the last `SEEN` images of each class are for testing."""
    rng = np.random.default_rng(0)
    labels = np.tile(np.arange(classes), per_class + SEEN)
    # A common part, classes that share directions, and images that do.
    common, directions = rng.normal(0, 1, DIMENSION), rng.normal(0, 1, (2 * classes, DIMENSION))
    places = rng.normal(0, 1, (classes, len(directions)))[labels]
    places += rng.normal(0, NOISE, places.shape)
    values = common + 0.2 * places @ directions + rng.normal(0, 1, (len(labels), DIMENSION))
    return np.maximum(0, values).astype(np.float32), labels


def stored(folder: str, classes: int, per_class: int):
    """Return features and labels of a folder, in the same order as `made_up`."""
    from cnnkit.features import load_features

    features = load_features(folder)
    rows = [np.flatnonzero(features.labels == label) for label in range(len(features.classes))]
    rows = [one[: per_class + SEEN] for one in rows if len(one) >= per_class + SEEN][:classes]
    chosen = np.stack(rows).T.ravel()
    return np.asarray(features.values[chosen]), features.labels[chosen]


def one_after_the_other(values, labels):
    """Return scikit-learn's pipeline and C, by liblinear in the space of the images."""
    from sklearn.metrics import recall_score
    from sklearn.preprocessing import Normalizer
    from sklearn.svm import LinearSVC

    from cnnkit.data.dataset import stratified_holdout
    from cnnkit.transfer.linear_classifier import C_VALUES

    rows = Normalizer().transform(values).astype(np.float64)
    variances, vectors = np.linalg.eigh(rows @ rows.T)
    kept = variances > 1e-12 * variances[-1]
    reduced = vectors[:, kept] * np.sqrt(variances[kept])
    held, recalls = stratified_holdout(labels, 0), []
    for c in C_VALUES:
        predicted = LinearSVC(C=c, dual=False).fit(reduced[~held], labels[~held])
        predicted = predicted.predict(reduced[held])
        recalls.append(recall_score(labels[held], predicted, average="macro"))
    c = C_VALUES[int(np.argmax(recalls))]
    model = LinearSVC(C=c, dual=False).fit(reduced, labels)
    coefficients = (model.coef_ / np.sqrt(variances[kept])) @ vectors[:, kept].T @ rows
    return lambda seen: Normalizer().transform(seen) @ coefficients.T + model.intercept_, c


def main() -> None:
    """Measure both and print the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", metavar="DIR")
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--per-class", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    from cnnkit.transfer import fit_linear_classifier

    if args.features:
        values, labels = stored(args.features, args.classes, args.per_class)
    else:
        values, labels = made_up(args.classes, args.per_class)
    train = args.classes * args.per_class
    candidates = {
        "all classes together": lambda: fit_linear_classifier(values[:train], labels[:train]),
        "liblinear, one after the other": lambda: one_after_the_other(
            values[:train], labels[:train]
        ),
    }
    passed, used, found = ({name: [] for name in candidates} for _ in range(3))
    for _ in range(args.rounds):
        for name, fit in candidates.items():
            begun, cpu = time.perf_counter(), time.process_time()
            found[name] = fit()
            passed[name].append(time.perf_counter() - begun)
            used[name].append(time.process_time() - cpu)
    shape = f"{args.classes} classes, {train} images of {values.shape[1]} features"
    for title, seconds in (("time", passed), ("CPU time", used)):
        medians = {name: float(np.median(one)) for name, one in seconds.items()}
        report(f"{shape}, {title}", medians, train)
    (pipeline, c), (decide, other_c) = found.values()
    ours, theirs = pipeline.decision_function(values[train:]), decide(values[train:])
    equal = (ours.argmax(1) == theirs.argmax(1)).mean()
    seen = [(one.argmax(1) == labels[train:]).mean() for one in (ours, theirs)]
    print(
        f"\n  C {c:g} and {other_c:g}; {equal:.2%} of the predictions for other images are equal, "
        f"{seen[0]:.2%} and {seen[1]:.2%} are right"
    )


if __name__ == "__main__":
    main()
