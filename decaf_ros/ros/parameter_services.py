"""rclpy's services for parameters, which would look up a million names, one by one, for whoever asks."""

from __future__ import annotations

from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.parameter_service import ParameterService

from decaf_ros import limits


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
        if refusal := _refusal(request.parameters):
            response.results = [SetParametersResult(successful=False, reason=refusal)]
            return response
        return super()._set_parameters_callback(request, response)

    def _set_parameters_atomically_callback(self, request: Any, response: Any) -> Any:
        if refusal := _refusal(request.parameters):
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
