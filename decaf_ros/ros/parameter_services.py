"""rclpy's services for parameters, which would look up a million names for whoever asks, and fail on a type that is none."""

from __future__ import annotations

from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.parameter import Parameter
from rclpy.parameter_service import ParameterService

from decaf_ros import limits
from decaf_ros.text import brief


class LimitedParameterService(ParameterService):
    """The six services of every node. Who names too many parameters at once is told so where the answer has room for words.

    Where it has none, the answer is empty, as rclpy's own is for a name that it does not know.
    """

    def _describe_parameters_callback(self, request: Any, response: Any) -> Any:
        return response if _refusal(request.names) else super()._describe_parameters_callback(request, response)

    def _get_parameters_callback(self, request: Any, response: Any) -> Any:
        return response if _refusal(request.names) else super()._get_parameters_callback(request, response)

    def _get_parameter_types_callback(self, request: Any, response: Any) -> Any:
        return response if _refusal(request.names) else super()._get_parameter_types_callback(request, response)

    def _list_parameters_callback(self, request: Any, response: Any) -> Any:
        return response if _refusal(request.prefixes) else super()._list_parameters_callback(request, response)

    def _set_parameters_callback(self, request: Any, response: Any) -> Any:
        if refusal := _refusal(request.parameters) or _no_value(request.parameters):
            response.results = [SetParametersResult(successful=False, reason=refusal)]
            return response
        return super()._set_parameters_callback(request, response)

    def _set_parameters_atomically_callback(self, request: Any, response: Any) -> Any:
        if refusal := _refusal(request.parameters) or _no_value(request.parameters):
            response.result = SetParametersResult(successful=False, reason=refusal)
            return response
        return super()._set_parameters_atomically_callback(request, response)


def _refusal(named: list[Any]) -> str:
    """Why so many are too many; "" when they are not."""
    try:
        limits.PARAMETERS.require(len(named), "the request")
    except ValueError as error:
        return str(error)
    return ""


def _no_value(parameters: list[Any]) -> str:
    """What is wrong with a value whose type ROS does not know, over which rclpy would fail without an answer; "" for none."""
    known = {kind.value for kind in Parameter.Type}
    unknown = [each for each in parameters if each.value.type not in known]
    return (
        f"parameter {brief(unknown[0].name, 80)} has a value of type {unknown[0].value.type}, which is none" if unknown else ""
    )
