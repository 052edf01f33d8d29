"""The server of step serve: a classifier behind a page and a JSON API. Needs the extra `serve`."""

from artclf.base.extras import require

require("serve", "flask", "waitress", "prometheus_client")
