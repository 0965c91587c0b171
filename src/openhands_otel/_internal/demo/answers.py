"""What the scripted provider may answer, and how a script says so.

A script is a sequence of answers, played one a request, or a function from request to answer. Answers can be written
in Python or sent to a running server as JSON, so they are pydantic models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

LLMApi = Literal["chat", "responses"]


class Usage(BaseModel):
    """Tokens of one answer as OpenAI counts them: cached ones are part of the input, reasoning part of the output."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: int = Field(default=0, ge=0)
    output: int = Field(default=0, ge=0)
    cached: int = Field(default=0, ge=0)
    reasoning: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _parts_fit_their_whole(self) -> Self:
        if self.cached > self.input or self.reasoning > self.output:
            raise ValueError("cached tokens are part of the input, reasoning tokens part of the output")
        return self


class ToolCall(BaseModel):
    """One call of a tool that the model asks for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    arguments: dict[str, Any] = Field(default_factory=dict)


class Answer(BaseModel):
    """One answer of the provider, faults included."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    usage: Usage | None = Field(default=None, description="None: measured from the request and this answer.")
    reasoning: int = Field(default=0, ge=0, description="Hidden output tokens, where usage is measured.")
    usage_sent: bool = Field(default=True, description="False: billed, but the response does not say the usage.")
    empty: bool = Field(default=False, description="Billed, but the response has no choices.")
    cost: float | None = Field(default=None, ge=0, description="Charge this, and say so in a response header.")
    delay: float = Field(default=0.0, ge=0, description="Seconds until the first byte.")
    stream_time: float = Field(default=0.0, ge=0, description="Seconds over which a streamed answer is spread.")
    status: int = Field(default=200, ge=200, le=599, description="400 and above: an error, which is not billed.")

    @property
    def is_error(self) -> bool:
        return self.status >= 400


def say(text: str, **more: Any) -> Answer:
    """An answer in words; OpenHands takes it as the end of a run."""
    return Answer(text=text, **more)


def call(tool: str, arguments: dict[str, Any], **more: Any) -> Answer:
    """An answer that calls one tool."""
    return Answer(tool_calls=(ToolCall(name=tool, arguments=arguments),), **more)


def refuse(status: int, **more: Any) -> Answer:
    """An HTTP error in place of an answer."""
    return Answer(status=status, **more)


@dataclass(frozen=True, slots=True)
class LLMRequest:
    """What a script may look at to choose its answer.

    ``number`` counts all requests of the server, ``turn`` those of this script, session and API key, both from 0.
    """

    number: int
    turn: int
    script: str
    session_id: str | None
    api_key: str
    api: LLMApi
    model: str
    stream: bool
    body: dict[str, Any]
    headers: dict[str, str]


Script = Callable[[LLMRequest], Answer] | Sequence[Answer]


def choose(script: Script, request: LLMRequest) -> Answer:
    """The answer of ``script`` to ``request``; a sequence that is over says so with HTTP 400."""
    if callable(script):
        return script(request)
    if request.turn < len(script):
        return script[request.turn]
    return Answer(status=400, text=f"script '{request.script}' has no answer left after {len(script)}")
