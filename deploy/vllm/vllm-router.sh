#!/bin/sh
# vllm-router before several `vllm serve`, for gateways with AQAA_ENGINE__VLLM_HTTP__URL=http://this:8000 and
# AQAA_ENGINE__VLLM_HTTP__HEALTH_PATH=/readiness. Second choice after haproxy/vllm.cfg. Run by tests/e2e/test_vllm_behind_routers.py on
# vllm-router 0.1.17.
#   deploy/vllm/vllm-router.sh --host 0.0.0.0 --port 8000 --worker-urls http://10.0.1.1:8000 http://10.0.1.2:8000
#
# consistent_hash: a conversation stays where its prefix is computed (X-Session-ID).
# disable-*: with its retries a full decoder is asked again and again, and ten 503 answers open the breaker for everybody.
# The rest: a worker that is gone is noticed, and one that is back is used, after 1 to 2 s instead of a minute.
# It says some lines about each request on its standard output, whatever --log-level.
exec vllm-router \
  --policy consistent_hash --disable-retries --disable-circuit-breaker \
  --health-check-interval-secs 1 --health-check-timeout-secs 1 \
  --health-failure-threshold 1 --health-success-threshold 1 --worker-startup-check-interval 1 "$@"
