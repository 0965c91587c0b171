"""How a viewer is asked: each question is one request to its API."""

from __future__ import annotations

from urllib.parse import quote

from pydantic import ValidationError

from openhands_otel._internal.asking.steps import Question, Request, Source, Steps, Unintelligible
from openhands_otel._internal.host.network import VIEWER_URL


class Viewer(Source):
    """``openhands-otel view``."""

    kind = "a collector of openhands-otel"
    example = VIEWER_URL
    cure = "start 'openhands-otel view' there, or name another URL"
    poll_s = None

    def steps[T](self, question: Question[T]) -> Steps[T]:
        path = question.endpoint.path.format(conversation_id=quote(question.conversation_id, safe=""))
        answer = yield Request(path, question.query, body=question.body)
        try:
            return question.endpoint.reader.validate_json(answer)
        except ValidationError:
            raise Unintelligible from None
