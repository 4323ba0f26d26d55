"""The NVML functions that llem asks a device, with the arguments after the handle."""

import pynvml

FUNCTIONS: dict[str, tuple[int, ...]] = {
    "nvmlDeviceGetApplicationsClock": (pynvml.NVML_CLOCK_SM,),
    "nvmlDeviceGetClockInfo": (pynvml.NVML_CLOCK_SM,),
    "nvmlDeviceGetComputeMode": (),
    "nvmlDeviceGetComputeRunningProcesses": (),
    "nvmlDeviceGetCudaComputeCapability": (),
    "nvmlDeviceGetCurrPcieLinkGeneration": (),
    "nvmlDeviceGetCurrentClocksEventReasons": (),
    "nvmlDeviceGetEccMode": (),
    "nvmlDeviceGetEnforcedPowerLimit": (),
    "nvmlDeviceGetFanSpeed": (),
    "nvmlDeviceGetMaxClockInfo": (pynvml.NVML_CLOCK_SM,),
    "nvmlDeviceGetMaxMigDeviceCount": (),
    "nvmlDeviceGetMemoryInfo": (),
    "nvmlDeviceGetMigMode": (),
    "nvmlDeviceGetName": (),
    "nvmlDeviceGetNumaNodeId": (),
    "nvmlDeviceGetPciInfo": (),
    "nvmlDeviceGetPersistenceMode": (),
    "nvmlDeviceGetPowerManagementDefaultLimit": (),
    "nvmlDeviceGetPowerManagementLimit": (),
    "nvmlDeviceGetPowerManagementLimitConstraints": (),
    "nvmlDeviceGetPowerUsage": (),
    "nvmlDeviceGetSupportedMemoryClocks": (),
    "nvmlDeviceGetTemperature": (pynvml.NVML_TEMPERATURE_GPU,),
    "nvmlDeviceGetTotalEnergyConsumption": (),
    "nvmlDeviceGetUUID": (),
    "nvmlDeviceGetUtilizationRates": (),
}
FIELD_VALUES: dict[str, int] = {
    "NVML_FI_DEV_POWER_INSTANT": pynvml.NVML_FI_DEV_POWER_INSTANT,
    "NVML_FI_DEV_POWER_AVERAGE": pynvml.NVML_FI_DEV_POWER_AVERAGE,
    "NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION": pynvml.NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION,
}
