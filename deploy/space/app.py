"""A Space of the Hugging Face hub: the export in the folder `export`, open to everybody.

The environment may set ARTCLF_EXPORT (another folder), PORT, and ARTCLF_TOKEN, without which
nobody can reload it.
"""

import os

from artclf import serve
from artclf.server.security import Security


def main():
    host = os.environ.get("SPACE_HOST", "localhost")
    security = Security(
        bind="0.0.0.0",
        hosts=(host,),
        token=os.environ.get("ARTCLF_TOKEN", ""),
        frames=("https://huggingface.co",),
        is_public=True,
    )
    serve.run(
        os.environ.get("ARTCLF_EXPORT", "export"),
        port=int(os.environ.get("PORT", "7860")),
        proxy="*",  # only the hub's proxy reaches a Space
        security=security,
    )


if __name__ == "__main__":
    main()
