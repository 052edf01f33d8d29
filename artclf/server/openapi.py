"""The description of the API, by OpenAPI 3.1."""

from artclf import __version__
from artclf.server.limits import Limits

TEXT = {"type": "string"}
NUMBER = {"type": "number"}
PROBABILITY = {"type": "number", "minimum": 0, "maximum": 1}
COUNT = {"type": "integer", "minimum": 0}
BOOLEAN = {"type": "boolean"}

PERIOD = {
    "type": "object",
    "required": ["period", "probability"],
    "properties": {"period": TEXT, "probability": PROBABILITY},
}
NEIGHBOUR = {
    "type": "object",
    "description": "A training picture. Texts are '' where nothing is known.",
    "required": ["id", "period", "similarity", "file", "thumbnail", "title", "artist"],
    "properties": {
        "id": COUNT,
        "period": TEXT,
        "similarity": {"type": "number", "description": "Cosine of the embeddings, at most 1."},
        "file": TEXT,
        "thumbnail": {"type": "string", "description": "Path of a small JPEG on this server."},
        "title": TEXT,
        "artist": TEXT,
        "year": TEXT,
        "licence": TEXT,
        "source": TEXT,
        "source_page": TEXT,
    },
}
RESULT = {
    "type": "object",
    "description": "What is said of one picture; only `name` and `error` where it can't be read.",
    "required": ["name", "error"],
    "properties": {
        "name": TEXT,
        "error": {"type": "string", "description": "Why there is no answer, or ''."},
        "predicted": {
            "type": ["string", "null"],
            "description": "The likeliest class; null where it is less likely than min_probability.",
        },
        "sure": BOOLEAN,
        "answer": {"type": "string", "description": "The answer in words."},
        "far": {"type": "boolean", "description": "Unlike all pictures that it learned from."},
        "distance": {
            "type": ["number", "null"],
            "description": "From all of training; above 1 is far.",
        },
        "top": {"type": "array", "items": {"$ref": "#/components/schemas/Period"}},
        "probabilities": {"type": "object", "additionalProperties": PROBABILITY},
        "nearest": {"type": "array", "items": {"$ref": "#/components/schemas/Neighbour"}},
        "artist": TEXT,
        "artist_probability": PROBABILITY,
    },
}
PREDICTIONS = {
    "type": "object",
    "required": ["model", "results"],
    "properties": {
        "model": {"type": "string", "description": "The version that answered."},
        "results": {"type": "array", "items": {"$ref": "#/components/schemas/Result"}},
        "error": TEXT,
    },
}
MODEL = {
    "type": "object",
    "required": ["name", "version", "backend", "classes", "min_probability", "limits"],
    "properties": {
        "name": TEXT,
        "architecture": TEXT,
        "backend": TEXT,
        "version": TEXT,
        "classes": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["period", "label"],
                "properties": {"period": TEXT, "label": TEXT},
            },
        },
        "chronological": {"type": "boolean", "description": "The classes are in order of time."},
        "size": COUNT,
        "min_probability": PROBABILITY,
        "saliency": BOOLEAN,
        "nearest": BOOLEAN,
        "far": BOOLEAN,
        "urls": BOOLEAN,
        "collects": {"type": "boolean", "description": "/api/suggest keeps pictures."},
        "figures": {"type": ["object", "null"]},
        "limits": {"type": "object", "additionalProperties": NUMBER},
    },
}
RECEIPT = {
    "type": "object",
    "required": ["number", "period", "is_new"],
    "properties": {
        "number": {"type": "string", "description": "By which its operator finds it again."},
        "period": {"type": "string", "description": "That it waits, or is listed, under."},
        "is_new": {"type": "boolean", "description": "It was not in the data set before."},
    },
}
ERROR = {"type": "object", "required": ["error"], "properties": {"error": TEXT}}
SCHEMAS = {
    "Period": PERIOD,
    "Neighbour": NEIGHBOUR,
    "Result": RESULT,
    "Predictions": PREDICTIONS,
    "Model": MODEL,
    "Receipt": RECEIPT,
    "Error": ERROR,
}
REASONS = {
    400: "The request makes no sense, or names another host.",
    401: "The token is missing or wrong.",
    403: "Not allowed here.",
    404: "There is no such thing.",
    408: "The request took too long to arrive.",
    409: "The new export can't be taken; the old one goes on.",
    411: "The request doesn't say how long it is.",
    413: "Too many bytes or pictures.",
    415: "The body is of a kind that isn't taken.",
    422: "No picture of the request can be read.",
    429: "Too many pictures from this address; Retry-After says when to come back.",
    501: "This server draws no maps.",
    503: "Too much is under way; Retry-After says when to come back.",
}
AGREEMENT = (
    "Keeps the file as it is, with what a camera wrote into it, its period and the classifier's "
    "answer, where /api/model says that the server collects. Nothing is kept without `agree=yes`, "
    "which means: whoever gives the picture may give it; a person looks at it; if that person "
    "accepts it, networks learn from it, and it is shown beside similar pictures."
)
COME_BACK = {
    "Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}
}


def description(limits: Limits, classes: int, needs_token: bool) -> dict:
    """The API of a server with these `limits`, for a network of so many `classes`, as an OpenAPI
    document.
    """
    everywhere = [400, *([401] if needs_token else [])]
    upload = [*everywhere, 403, 408, 411, 413, 415, 422, 429, 503]
    query = [
        _parameter(
            "k",
            "How many classes `top` names.",
            {"type": "integer", "minimum": 1, "maximum": classes},
        ),
        _parameter(
            "nearest",
            "How many training pictures to name.",
            {"type": "integer", "minimum": 0, "maximum": 24},
        ),
    ]
    period = _parameter("period", "The class to explain; the likeliest by default.", TEXT)
    suggested = _parameter("period", "Its period; left out where it isn't known.", TEXT)
    agreed = _parameter("agree", AGREEMENT, {"type": "string", "enum": ["yes"]}, is_required=True)
    receipt = {"$ref": "#/components/schemas/Receipt"}
    predictions = {"$ref": "#/components/schemas/Predictions"}
    document: dict = {
        "openapi": "3.1.0",
        "info": {
            "title": "artclf",
            "version": __version__,
            "description": "Tells the periods of paintings. Uploads are kept in memory, and only "
            "until they are answered, but for those that somebody gives by /api/suggest.",
        },
        "paths": {
            "/api/predict": {
                "post": {
                    "operationId": "predict",
                    "summary": "The periods of one picture or many",
                    "parameters": query,
                    "requestBody": _body(limits, limits.pictures),
                    "responses": {
                        "200": _json("Answers, in the order of the pictures.", predictions),
                        **_errors(upload),
                        "422": _json(REASONS[422], predictions),
                    },
                }
            },
            "/api/saliency": {
                "post": {
                    "operationId": "saliency",
                    "summary": "What spoke for a class, as a map of one picture",
                    "parameters": [period],
                    "requestBody": _body(limits, pictures=1),
                    "responses": {
                        "200": {
                            "description": "Grey, black for 0, white for the highest value.",
                            "content": {"image/png": {}},
                        },
                        **_errors([*upload, 501]),
                    },
                }
            },
            "/api/suggest": {
                "post": {
                    "operationId": "suggest",
                    "summary": "Give one picture to a data set, for a person to decide on",
                    "description": AGREEMENT,
                    "parameters": [agreed, suggested],
                    "requestBody": _body(limits, pictures=1, takes_urls=False),
                    "responses": {
                        "200": _json("It is in the data set already.", receipt),
                        "201": _json("It waits for a decision.", receipt),
                        **_errors(upload),
                        "409": _json(
                            f"{limits.suggestions} pictures, or {limits.suggestion_bytes} bytes of "
                            "them, wait for a decision: no more are taken.",
                            {"$ref": "#/components/schemas/Error"},
                        ),
                    },
                }
            },
            "/api/model": {
                "get": {
                    "operationId": "model",
                    "summary": "The classifier that answers",
                    "responses": {
                        "200": _json("What it is.", {"$ref": "#/components/schemas/Model"}),
                        **_errors(everywhere),
                    },
                }
            },
            "/api/thumbnails/{version}/{id}": {
                "get": {
                    "operationId": "thumbnail",
                    "summary": "A training picture, small",
                    "parameters": [
                        _path("version", TEXT),
                        _path("id", COUNT),
                    ],
                    "responses": {
                        "200": {"description": "The picture.", "content": {"image/jpeg": {}}},
                        **_errors([*everywhere, 404]),
                    },
                }
            },
            "/api/reload": {
                "post": {
                    "operationId": "reload",
                    "summary": "Take in the export that lies in the folder now",
                    "responses": {
                        "200": _json("What it is.", {"$ref": "#/components/schemas/Model"}),
                        **_errors([*everywhere, 403, 409, 429]),
                    },
                }
            },
            "/api/openapi.json": {
                "get": {
                    "operationId": "openapi",
                    "summary": "This description",
                    "responses": {
                        "200": _json("OpenAPI 3.1.", {"type": "object"}),
                        **_errors(everywhere),
                    },
                }
            },
            "/healthz": _health("healthz", "Whether the process answers", [400]),
            "/readyz": _health("readyz", "Whether it takes requests", [400, 503]),
            "/metrics": {
                "get": {
                    "operationId": "metrics",
                    "summary": "Counters in the text format of Prometheus",
                    "responses": {
                        "200": {"description": "Counters.", "content": {"text/plain": {}}},
                        **_errors(everywhere),
                    },
                }
            },
        },
        "components": {"schemas": SCHEMAS},
    }
    if needs_token:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
        for path in ("/healthz", "/readyz"):
            document["paths"][path]["get"]["security"] = []
    return document


def _body(limits: Limits, pictures: int, takes_urls: bool = True) -> dict:
    """The body of a request with at most so many `pictures`."""
    binary = {"type": "string", "contentMediaType": "application/octet-stream"}
    files = {"type": "array", "items": binary, "minItems": 1, "maxItems": pictures}
    text = (
        f"At most {pictures} pictures of {limits.max_bytes} bytes and {limits.max_pixels} pixels "
        f"each, {limits.request_bytes} bytes in all."
    )
    content: dict = {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["image"],
                "properties": {"image": files},
            }
        },
        "image/*": {},
        "application/octet-stream": {},
    }
    if takes_urls:
        url = {"type": "string", "pattern": "^https?://"}
        urls = {"type": "array", "items": url, "minItems": 1, "maxItems": pictures}
        with_urls = {"type": "object", "required": ["urls"], "properties": {"urls": urls}}
        content["application/json"] = {"schema": with_urls}
        text += " URLs only where /api/model says so."
    return {"required": True, "description": text, "content": content}


def _json(text: str, schema: dict) -> dict:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _errors(statuses: list[int]) -> dict:
    errors = {}
    for status in sorted(set(statuses)):
        answer = _json(REASONS[status], {"$ref": "#/components/schemas/Error"})
        if status in (429, 503):
            answer["headers"] = COME_BACK
        errors[str(status)] = answer
    return errors


def _parameter(name: str, text: str, schema: dict, is_required: bool = False) -> dict:
    return {
        "name": name,
        "in": "query",
        "description": text,
        "schema": schema,
        "required": is_required,
    }


def _path(name: str, schema: dict) -> dict:
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _health(name: str, text: str, statuses: list[int]) -> dict:
    schema = {"type": "object", "required": ["status"], "properties": {"status": TEXT}}
    return {
        "get": {
            "operationId": name,
            "summary": text,
            "responses": {"200": _json("It does.", schema), **_errors(statuses)},
        }
    }
