# What the pods of rayjob.yaml run. Build it in the clone:
#   docker build -f deploy/ray.Dockerfile -t REGISTRY/artclf-ray .
FROM rayproject/ray:2.60.0-py312-cpu
WORKDIR /home/ray/artclf
COPY --chown=ray pyproject.toml README.md LICENSE ./
COPY --chown=ray .ci/constraints.txt .ci/constraints.txt
COPY --chown=ray artclf artclf
RUN pip install --no-cache-dir -c .ci/constraints.txt ".[train,cluster]"
ENV RAY_USAGE_STATS_ENABLED=0
