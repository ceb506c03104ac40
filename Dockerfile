# A machine with the right Python and Bazel, for those that have neither:
#   docker build -t vim_tf . && docker run -it vim_tf
#   docker run -it -v "$PWD/runs:/vim_tf/runs" vim_tf \
#     ./bazelw run //experiments:quickstart
FROM debian:12-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        bazel-bootstrap ca-certificates git python3.11-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /vim_tf
COPY . .
RUN ./bazelw build //experiments:quickstart
CMD ["bash"]
