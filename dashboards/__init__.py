"""Grafana dashboards as code, the JSON they build, and the rules and configuration of Prometheus."""
