"""The API beside its description: schemathesis makes requests of the OpenAPI document, such as it
allows and such as it forbids, and checks each answer by what the document promises.
"""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings, strategies
from made_pictures import encoded, noise
from made_served import VOCAB, Brightness
from schemathesis import GenerationMode

from artclf import download
from artclf.data.suggestions import Suggestions
from artclf.server.app import Options, create_app
from artclf.server.limits import Limits
from artclf.server.metrics import Metrics
from artclf.server.openapi import description
from artclf.server.security import Security
from artclf.server.served import Current, Served, Settings

WITH_INPUT = ("/api/predict", "/api/saliency", "/api/suggest")
REQUESTS = [
    (path, method, mode)
    for path, methods in description(Limits(), 3, needs_token=False)["paths"].items()
    for method in methods
    for mode in GenerationMode
    if mode is GenerationMode.POSITIVE or path in WITH_INPUT  # others have nothing to get wrong
]
# what a request may be answered that the document allows: a schema can't say which bytes are a
# picture (422, 413), what is turned off (403, 501), nor that the list is full (409)
ANSWERS = ["2xx", "403", "404", "409", "413", "422", "501"]
# schemathesis takes 411 and 413 for no refusals, unless it is told
REFUSALS = ["400", "403", "404", "405", "409", "411", "413", "415", "422", "501"]
PICTURES = strategies.sampled_from([encoded(noise(9, 7, seed)) for seed in range(5)])
FEW = settings(
    max_examples=10,
    derandomize=True,  # the same requests whenever the same modules are loaded
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),  # of speed, on a machine that does other things
)
schemathesis.openapi.media_type("application/octet-stream", PICTURES)
schemathesis.openapi.media_type("image/*", PICTURES)


@pytest.fixture(scope="module")
def schema(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    for place, period in enumerate(VOCAB):
        (folder / "gallery" / period).mkdir(parents=True)
        (folder / "gallery" / period / "a.png").write_bytes(encoded(noise(seed=place)))
    download.import_folder(folder / "gallery", folder / "data")
    limits = Limits(rate=0)
    suggestions = Suggestions(folder / "data", most=3, most_bytes=10**6)
    current = Current(lambda: Served(folder, Settings("onnx"), classifier=Brightness()))
    app = create_app(current, Metrics(), Options(limits, Security(), suggestions=suggestions))
    checks = {
        "positive_data_acceptance": {"expected-statuses": ANSWERS},
        "negative_data_rejection": {"expected-statuses": REFUSALS},
        "not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", "501"]},
    }
    config = schemathesis.Config.from_dict({"checks": checks})
    return schemathesis.openapi.from_wsgi("/api/openapi.json", app, config=config)


@pytest.mark.parametrize(("path", "method", "mode"), REQUESTS)
def test_answers_are_as_described(schema, path, method, mode):
    @FEW
    @given(case=schema[path][method].as_strategy(generation_mode=mode))
    def check(case):
        case.call_and_validate()

    check()
