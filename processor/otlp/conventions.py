"""Names of the OpenTelemetry semantic conventions that are used, of one pinned version."""

from __future__ import annotations

from typing import Final, NamedTuple

VERSION: Final = "1.41.0"
"""Of the semantic conventions. GenAI and messaging names are in development there, and change."""
SCHEMA_URL: Final = f"https://opentelemetry.io/schemas/{VERSION}"

OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
AGENT_ID: Final = "gen_ai.agent.id"
CONVERSATION_ID: Final = "gen_ai.conversation.id"
TOOL_NAME: Final = "gen_ai.tool.name"
TOOL_TYPE: Final = "gen_ai.tool.type"
TOOL_CALL_ID: Final = "gen_ai.tool.call.id"
TOOL_ARGUMENTS: Final = "gen_ai.tool.call.arguments"
TOOL_RESULT: Final = "gen_ai.tool.call.result"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
ERROR_TYPE: Final = "error.type"
OTHER_ERROR: Final = "_OTHER"

INVOKE_AGENT: Final = "invoke_agent"
EXECUTE_TOOL: Final = "execute_tool"
CHAT: Final = "chat"

SYSTEM: Final = "messaging.system"
KAFKA: Final = "kafka"
DESTINATION: Final = "messaging.destination.name"
PARTITION: Final = "messaging.destination.partition.id"
CONSUMER_GROUP: Final = "messaging.consumer.group.name"
CLIENT_ID: Final = "messaging.client.id"
MESSAGE_COUNT: Final = "messaging.batch.message_count"
OPERATION_NAME: Final = "messaging.operation.name"
OPERATION_TYPE: Final = "messaging.operation.type"


class Operation(NamedTuple):
    """An operation of the messaging conventions: Kafka's name of it, and its type."""

    name: str
    type: str


POLL: Final = Operation("poll", "receive")
PROCESS: Final = Operation("process", "process")
COMMIT: Final = Operation("commit", "settle")

UNIT: Final = "unit"
"""Name of the span around the three; the conventions have none for a batch that is committed as one."""
UNIT_RECORDS: Final = "run_steps.unit.records"
UNIT_POLLS: Final = "run_steps.unit.polls"
UNIT_PARTITIONS: Final = "run_steps.unit.partitions"
