# docker build -t imgmatch . && docker run -e IMGMATCH_TOKEN=secret -p 8000:8000 imgmatch

FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE imgmatch_df_command.py ./
COPY imgmatch_df ./imgmatch_df
COPY sql ./sql
RUN python -m venv /opt/imgmatch && /opt/imgmatch/bin/pip install --no-cache-dir ".[server]"

FROM python:3.13-slim
RUN useradd --system --create-home imgmatch
COPY --from=build /opt/imgmatch /opt/imgmatch
ENV PATH=/opt/imgmatch/bin:$PATH NUMBA_CACHE_DIR=/home/imgmatch/.cache/numba PYTHONUNBUFFERED=1
USER imgmatch
# Compile the kernels now, so that a container is ready in seconds.
RUN python -c "from imgmatch_df.options import Options; from imgmatch_df.server.handlers import warm_up; warm_up(Options())"
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/ready', timeout=4)"]
STOPSIGNAL SIGTERM
# It refuses to listen here without a token: IMGMATCH_TOKEN, or --token-file of a mounted secret.
ENTRYPOINT ["imgmatch", "serve", "--host", "0.0.0.0"]
