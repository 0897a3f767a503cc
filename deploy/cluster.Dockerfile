# The image of deploy/ray and deploy/kubeflow: `cuda` with Ray and what training needs.
#
#   docker build --file deploy/cluster.Dockerfile --tag stepback-llm/cluster:0.2.0 .
ARG CUDA_IMAGE=stepback-llm/cuda:0.2.0
FROM ${CUDA_IMAGE}
USER root
# KubeRay's probes call wget.
RUN apt-get update -qq && apt-get install -qq --no-install-recommends wget >/dev/null \
    && rm -r /var/lib/apt/lists/*
RUN python3 -m pip install --no-cache-dir --break-system-packages \
    "ray[data,default]==2.60.0" accelerate==1.15.0 tensorboard==2.21.0
COPY training/recipes/accelerate /recipes/accelerate
USER 10001:10001
