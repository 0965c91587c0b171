"""A tool that asks a model, as ask_oracle and vision_inspect do. OpenHands wants tools' classes in modules."""

from __future__ import annotations

from typing import Any, ClassVar

from openhands.sdk import Message, TextContent
from openhands.sdk.tool import Action, Observation, ToolDefinition, ToolExecutor


class ConsultAction(Action):
    question: str


class ConsultObservation(Observation):
    pass


class Consult(ToolExecutor):
    helper: ClassVar[Any] = None
    says_no: ClassVar[bool] = False

    def __call__(self, action: Any, conversation: Any = None) -> Any:
        self.helper.completion([Message(role="user", content=[TextContent(text=action.question)])])
        return ConsultObservation.from_text("asked", is_error=self.says_no)


class ConsultTool(ToolDefinition[ConsultAction, ConsultObservation]):
    @classmethod
    def create(cls, conv_state: Any = None, **params: Any) -> Any:
        return [
            cls(
                description="ask a colleague",
                action_type=ConsultAction,
                observation_type=ConsultObservation,
                executor=Consult(),
            )
        ]
