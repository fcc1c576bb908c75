"""The tests mirror the package: a module has a test file, or is listed with the one it shares."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Modules whose tests are in the file of another module.
SHARED: dict[str, str] = {
    "_untrusted/limits": "test_security_policy.py",
    "_untrusted/pickled_arrays": "_untrusted/test_pickles.py",
    "_feature_options": "features/test_spec.py",
    "_model_config": "models/weights/test_keras_config.py",
    "_network_names": "test_network_outline.py",
    "_networks": "test_network_outline.py",
    "_version": "test_package.py",
    "config_fields": "test_config.py",
    "config_values": "test_config.py",
    "cli/arguments": "test_config.py",
    "cli/commands/_export_verify": "export/test_verify.py",
    "cli/commands/_transfer_predict": "transfer/test_linear_probe.py",
    "cli/commands/features": "features/test_store.py",
    "cli/commands/neighbors": "features/test_nearest_neighbors.py",
    "cli/commands/recipes": "recipes/test_recipes.py",
    "cli/commands/transfer": "transfer/test_benchmark.py",
    "cli/commands/visualize": "cli/visualize/test_figure.py",
    "cli/network_words": "cli/test_wrong_calls.py",
    "cli/connection": "cli/commands/test_query.py",
    "cli/quiet_tensorflow": "cli/commands/test_serve.py",
    "cli/serve/options": "cli/commands/test_serve_options.py",
    "cli/transfer/inputs": "transfer/test_near_duplicates.py",
    "cli/transfer/multilabel": "data/sources/test_voc.py",
    "cli/transfer/single_label": "transfer/test_benchmark.py",
    "cli/visualize/activation_maximization": "visualize/test_activation_maximization.py",
    "cli/visualize/attribution": "cli/visualize/test_figure.py",
    "cli/visualize/correspondence": "visualize/test_correspondence.py",
    "cli/visualize/filters": "visualize/test_filters.py",
    "cli/visualize/invariance": "visualize/test_invariance.py",
    "cli/visualize/occlusion": "visualize/occlusion/test_occlusion.py",
    "client/base_client": "client/test_sync_client.py",
    "client/flow": "client/test_calls.py",
    "client/transport": "client/test_channel.py",
    "data/animation": "data/test_formats.py",
    "data/bmp": "data/test_formats.py",
    "data/graph_checks": "export/test_image_header.py",
    "data/orientation": "data/test_formats.py",
    "export/formats/card": "export/formats/test_write.py",
    "export/formats/runtime": "export/formats/test_write.py",
    "export/invalid_inputs": "export/test_verify.py",
    "export/isolated_worker": "export/test_isolated_model.py",
    "export/signature_context": "export/test_signatures.py",
    "features/image_batches": "features/test_extract.py",
    "cli/train_runs": "cli/commands/test_train.py",
    "figures/filters": "visualize/test_filters.py",
    "figures/training_curves": "cli/commands/test_plot.py",
    "models/feature_extractor": "features/test_extractor.py",
    "models/weights/weights_file": "models/weights/test_open.py",
    "recipes/alexnet": "recipes/test_recipes.py",
    "recipes/cifar10": "recipes/test_recipes.py",
    "recipes/recipe": "recipes/test_recipes.py",
    "recipes/vgg": "recipes/test_recipes.py",
    "recipes/zfnet": "recipes/test_recipes.py",
    "reports/drawing": "reports/test_write.py",
    "reports/inside": "reports/test_write.py",
    "reports/microscope/class_page": "reports/microscope/test_write.py",
    "reports/microscope/image_page": "reports/microscope/test_write.py",
    "reports/microscope/site_writer": "reports/microscope/test_write.py",
    "reports/microscope/layer_page": "reports/microscope/test_write.py",
    "reports/microscope/overview": "reports/microscope/test_write.py",
    "reports/microscope/page": "reports/microscope/test_write.py",
    "reports/microscope/pictures": "reports/microscope/test_write.py",
    "reports/microscope/site_folder": "reports/microscope/test_write.py",
    "reports/microscope/survey": "reports/microscope/test_write.py",
    "reports/microscope/unit_page": "reports/microscope/test_write.py",
    "reports/page": "reports/test_write.py",
    "reports/page_file": "reports/test_write.py",
    "_progress": "reports/test_write.py",
    "reports/results": "reports/test_write.py",
    "reports/settings": "reports/test_write.py",
    "server/model_calls": "server/test_rest.py",
    "training/step_batches": "training/test_epoch.py",
    "transfer/average_precision": "transfer/test_multilabel.py",
    "visualize/occlusion/affected_region": "visualize/occlusion/test_incremental.py",
    "wire/methods": "integration/test_schema.py",
}


def modules():
    for path in sorted((ROOT / "cnnkit").rglob("*.py")):
        if not path.stem.endswith("_pb2") and path.stem not in ("__init__", "__main__"):
            yield path.relative_to(ROOT / "cnnkit").with_suffix("").as_posix()


def own_test(module: str) -> str:
    folder, _, name = module.rpartition("/")
    return f"{folder}/test_{name.strip('_')}.py".strip("/")


def test_every_module_has_tests():
    missing = [
        module
        for module in modules()
        if module not in SHARED and not (ROOT / "tests" / own_test(module)).is_file()
    ]
    assert missing == []


@pytest.mark.parametrize(("module", "file"), SHARED.items())
def test_shared_test_files_exist_and_are_needed(module, file):
    assert module in set(modules())
    assert not (ROOT / "tests" / own_test(module)).is_file()
    assert (ROOT / "tests" / file).is_file()
