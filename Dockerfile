# The server of docs/SERVE.md, from packages of PyPI alone. A run's folder is mounted at /model:
#   docker build -t hybridnet .
#   docker run --rm -p 127.0.0.1:8000:8000 -v "$PWD/runs/scenes-chain:/model:ro" hybridnet
FROM python:3.12-slim

RUN useradd --create-home --uid 1000 server
WORKDIR /app
COPY requirements.txt ./
COPY requirements requirements
RUN pip install --no-cache-dir -r requirements.txt -r requirements/serve.txt -r requirements/timm.txt
COPY . .

USER server
ENV PYTHONDONTWRITEBYTECODE=1
EXPOSE 8000
HEALTHCHECK --start-period=60s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz')"]
ENTRYPOINT ["python", "serve.py", "--checkpoint", "/model", "--host", "0.0.0.0"]
