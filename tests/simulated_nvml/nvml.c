/* A simulated NVML: GPUs that follow a scenario, keep an exact account of their energy, and fail on request.
 *
 * The scenario is a file of lines (written by tests/simulated_nvml/scenario.py), named by SIMULATED_NVML_SCENARIO or
 * given to sim_load(). Seconds in it count from `epoch_ns` on the monotonic clock. sim_set_time_ns() puts simulated
 * time in the place of the clock. Only what the tests and the programs under test call is here.
 *
 * What is set (power limit, locked clocks) is a line at the end of the scenario's `settings` file: "NS GPU limit MW" or
 * "NS GPU clock MHZ", 0 MHz being no lock. Every process reads all of it, so that all agree on each moment's power.
 *
 * A program under test loads a GPU that has `load_w` with sim_set_load(UUID, level), 0 to 1000; "NS GPU load LEVEL" is then
 * a line of the same file, and the GPU follows these instead of its curve from the first one on.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6,
       INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9, GPU_IS_LOST = 15, UNKNOWN = 999 };
enum { MAX_GPUS = 16, MAX_MIGS = 8, MAX_ROWS = 8192, MAX_FAULTS = 16, MAX_THROTTLES = 8, MAX_PROCESSES = 8 };
enum { FIELD_ENERGY = 83, FIELD_AVERAGE = 185, FIELD_INSTANT = 186 };
enum { TYPE_UNSIGNED_INT = 1, TYPE_UNSIGNED_LONG_LONG = 3 };
enum { THROTTLE_IDLE = 1, THROTTLE_POWER_CAP = 4 };
enum { MAX_CHANGES = 1024, MAX_LIMITS = 16, CLOCK_STEP_MHZ = 15, MAX_STEPS = 16384, FULL_LOAD = 1000, SLICES = 64 };

typedef struct { char function[32]; int code; double from, until, slow_ms; } Fault;
typedef struct { double from, until; unsigned long long reasons; unsigned sm_mhz; } Throttle;
typedef struct { char uuid[96], profile[32]; unsigned memory_mib; } Mig;
typedef struct { int gpu, mig; } Handle; /* mig < 0: the GPU itself */
typedef struct { double at, limit_w; } Change;
typedef struct { double limit_w, row_j[MAX_ROWS]; } Capped; /* energy of the rows under a limit */
typedef struct { double at, power_w, energy_j; } Step; /* the power from then on, and all energy before */
typedef struct {
    char name[96], uuid[96], pci[32];
    int major, minor, has_instant, has_average, has_energy_field, has_mig, persistence, ecc, compute_mode;
    unsigned memory_mib, used_mib, sm_min, sm_max, memory_mhz;
    double limit_w, default_limit_w, cool_c, hot_c, average_s, refresh_s, refresh_phase_s, seen_share, seen_period_s, tick_s;
    double delay_s, low_pass_s, idle_w, load_w, counter_scale;
    double reset_at, stuck_at, jump_at, spike_from, spike_until, spike_w;
    unsigned long long counter_start_mj, jump_mj;
    int linear, rows, faults, throttles, migs, processes, changes, limits, steps;
    unsigned locked_mhz, load;
    double least_limit_w;
    Change change[MAX_CHANGES];
    Capped capped[MAX_LIMITS];
    Step step[MAX_STEPS];
    double row_s[MAX_ROWS], row_w[MAX_ROWS], row_j[MAX_ROWS];
    Fault fault[MAX_FAULTS];
    Throttle throttle[MAX_THROTTLES];
    Mig mig[MAX_MIGS];
    unsigned pid[MAX_PROCESSES];
} Gpu;

static Gpu gpus[MAX_GPUS];
static Handle handles[MAX_GPUS][MAX_MIGS + 1];
static int gpu_count, loaded, driver_error, references, cuda_version = 12080;
static char driver_version[80] = "570.86.15";
static long long epoch_ns, simulated_ns, call_ns, calls;
static double initialised_at, restart_at = INFINITY, restart_for;
static char settings_path[512];
static long settings_read; /* bytes */

/* ---- time ---- */

long long sim_time_ns(void) {
    if (simulated_ns) return simulated_ns;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}
void sim_set_time_ns(long long ns) { simulated_ns = ns; }
void sim_sleep_ns(long long ns) {
    if (simulated_ns) { simulated_ns += ns; return; }
    struct timespec span = {ns / 1000000000LL, ns % 1000000000LL};
    nanosleep(&span, NULL);
}
long long sim_calls(void) { return calls; }
static double now_s(void) { return (sim_time_ns() - epoch_ns) / 1e9; }

/* ---- the scenario ---- */

static Gpu *add_gpu(void) {
    Gpu *gpu = &gpus[gpu_count++];
    memset(gpu, 0, sizeof *gpu);
    gpu->linear = 1;
    gpu->limit_w = gpu->default_limit_w = 700;
    gpu->least_limit_w = 200;
    gpu->average_s = gpu->counter_scale = 1;
    gpu->reset_at = gpu->stuck_at = gpu->jump_at = gpu->spike_from = INFINITY;
    return gpu;
}

static int add_row(Gpu *gpu, const char *line) {
    int n = gpu->rows;
    if (n >= MAX_ROWS || sscanf(line, "row %lf %lf", &gpu->row_s[n], &gpu->row_w[n]) != 2) return 0;
    double width = n ? gpu->row_s[n] - gpu->row_s[n - 1] : 0;
    double mean = n ? (gpu->linear ? (gpu->row_w[n - 1] + gpu->row_w[n]) / 2 : gpu->row_w[n - 1]) : 0;
    gpu->row_j[n] = n ? gpu->row_j[n - 1] + width * mean : 0;
    gpu->rows++;
    return 1;
}

static int add_fault(Gpu *gpu, const char *line) {
    if (gpu->faults >= MAX_FAULTS) return 0;
    Fault *f = &gpu->fault[gpu->faults++];
    return sscanf(line, "fault %31s %d %lf %lf %lf", f->function, &f->code, &f->from, &f->until, &f->slow_ms) == 5;
}

static int add_throttle(Gpu *gpu, const char *line) {
    if (gpu->throttles >= MAX_THROTTLES) return 0;
    Throttle *t = &gpu->throttle[gpu->throttles++];
    return sscanf(line, "throttle %lf %lf %llx %u", &t->from, &t->until, &t->reasons, &t->sm_mhz) == 4;
}

static int add_mig(Gpu *gpu, const char *line) {
    gpu->has_mig = 1;
    if (!strcmp(line, "mig")) return 1; /* divided, but no instance made */
    if (gpu->migs >= MAX_MIGS) return 0;
    Mig *m = &gpu->mig[gpu->migs++];
    return sscanf(line, "mig %95s %31s %u", m->uuid, m->profile, &m->memory_mib) == 3;
}

static int parse_gpu(Gpu *g, const char *line) {
    if (!strncmp(line, "row ", 4)) return add_row(g, line);
    if (!strncmp(line, "fault ", 6)) return add_fault(g, line);
    if (!strncmp(line, "throttle ", 9)) return add_throttle(g, line);
    if (!strncmp(line, "mig", 3)) return add_mig(g, line);
    if (sscanf(line, "name %95[^\n]", g->name) == 1 || sscanf(line, "uuid %95s", g->uuid) == 1) return 1;
    if (sscanf(line, "process %u", &g->pid[g->processes]) == 1) return ++g->processes <= MAX_PROCESSES;
    return sscanf(line, "pci %31s", g->pci) == 1 || sscanf(line, "capability %d.%d", &g->major, &g->minor) == 2 ||
           sscanf(line, "memory_mib %u %u", &g->memory_mib, &g->used_mib) == 2 ||
           sscanf(line, "limit_w %lf %lf", &g->limit_w, &g->default_limit_w) == 2 ||
           sscanf(line, "least_limit_w %lf", &g->least_limit_w) == 1 ||
           sscanf(line, "temperature_c %lf %lf", &g->cool_c, &g->hot_c) == 2 ||
           sscanf(line, "clocks_mhz %u %u %u", &g->sm_min, &g->sm_max, &g->memory_mhz) == 3 ||
           sscanf(line, "modes %d %d %d", &g->persistence, &g->ecc, &g->compute_mode) == 3 ||
           sscanf(line, "fields %d %d %d", &g->has_instant, &g->has_average, &g->has_energy_field) == 3 ||
           sscanf(line, "counter %lf %llu", &g->tick_s, &g->counter_start_mj) == 2 ||
           sscanf(line, "average_s %lf", &g->average_s) == 1 ||
           sscanf(line, "refresh %lf %lf", &g->refresh_s, &g->refresh_phase_s) == 2 ||
           sscanf(line, "seen %lf %lf", &g->seen_share, &g->seen_period_s) == 2 ||
           sscanf(line, "counter_scale %lf", &g->counter_scale) == 1 ||
           sscanf(line, "delay_s %lf", &g->delay_s) == 1 || sscanf(line, "low_pass_s %lf", &g->low_pass_s) == 1 ||
           sscanf(line, "load_w %lf %lf", &g->idle_w, &g->load_w) == 2 ||
           sscanf(line, "linear %d", &g->linear) == 1 || sscanf(line, "counter_reset %lf", &g->reset_at) == 1 ||
           sscanf(line, "counter_stuck %lf", &g->stuck_at) == 1 ||
           sscanf(line, "counter_jump %lf %llu", &g->jump_at, &g->jump_mj) == 2 ||
           sscanf(line, "power_spike %lf %lf %lf", &g->spike_from, &g->spike_until, &g->spike_w) == 3;
}

static int parse(Gpu **gpu, const char *line) {
    if (!strcmp(line, "gpu")) return gpu_count < MAX_GPUS && (*gpu = add_gpu());
    return sscanf(line, "driver_error %d", &driver_error) == 1 ||
           sscanf(line, "settings %511s", settings_path) == 1 ||
           sscanf(line, "driver %79s %d", driver_version, &cuda_version) == 2 ||
           sscanf(line, "epoch_ns %lld", &epoch_ns) == 1 || sscanf(line, "call_ns %lld", &call_ns) == 1 ||
           sscanf(line, "restart %lf %lf", &restart_at, &restart_for) == 2 || (*gpu && parse_gpu(*gpu, line));
}

/* 0, or the number of the first line that is not understood; -1 without a file. Forgets the scenario before. */
int sim_load(const char *path) {
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[512];
    Gpu *gpu = NULL;
    gpu_count = driver_error = 0;
    initialised_at = 0; /* who has the driver open keeps it open */
    calls = epoch_ns = call_ns = simulated_ns = settings_read = 0;
    settings_path[0] = 0;
    restart_at = INFINITY;
    loaded = 1;
    if (!file) return -1;
    for (int number = 1; fgets(line, sizeof line, file); number++) {
        char *start = line + strspn(line, " \t");
        start[strcspn(start, "\n#")] = 0;
        if (*start && !parse(&gpu, start)) { fclose(file); return number; }
    }
    fclose(file);
    return 0;
}

/* ---- physics ---- */

static int row_before(const Gpu *g, double s) {
    int low = 0, high = g->rows - 1;
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (g->row_s[middle] <= s) low = middle; else high = middle;
    }
    return low;
}

/* ---- what is set ---- */

static double capped_w(double watts, double limit_w) { return fmin(watts, limit_w); }

/* The rows' energy under a limit, worked out once; a limit beyond the last kept one takes the last one's place. */
static const Capped *capped(Gpu *g, double limit_w) {
    for (int i = 0; i < g->limits; i++)
        if (g->capped[i].limit_w == limit_w) return &g->capped[i];
    if (g->limits < MAX_LIMITS) g->limits++;
    Capped *c = &g->capped[g->limits - 1];
    c->limit_w = limit_w;
    c->row_j[0] = 0;
    for (int n = 1; n < g->rows; n++) {
        double before = capped_w(g->row_w[n - 1], limit_w), after = capped_w(g->row_w[n], limit_w);
        double mean = g->linear ? (before + after) / 2 : before;
        c->row_j[n] = c->row_j[n - 1] + (g->row_s[n] - g->row_s[n - 1]) * mean;
    }
    return c;
}

static double energy_until(const Gpu *g, double s);
static double loaded_w(const Gpu *g) { return g->idle_w + (g->load_w - g->idle_w) * g->load / FULL_LOAD; }

static void add_step(Gpu *g, double at) {
    if (g->steps >= MAX_STEPS) return;
    if (g->steps) at = fmax(at, g->step[g->steps - 1].at);
    double energy_j = energy_until(g, at);
    g->step[g->steps++] = (Step){at, capped_w(loaded_w(g), g->limit_w), energy_j};
}

static const Step *step_before(const Gpu *g, double s) {
    if (!g->steps || s < g->step[0].at) return NULL;
    int low = 0, high = g->steps;
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (g->step[middle].at <= s) low = middle; else high = middle;
    }
    return &g->step[low];
}

static void take_change(long long at_ns, unsigned gpu, const char *what, unsigned value) {
    if ((int)gpu >= gpu_count) return;
    Gpu *g = &gpus[gpu];
    double at = (at_ns - epoch_ns) / 1e9;
    if (!strcmp(what, "clock")) g->locked_mhz = value;
    if (!strcmp(what, "load")) {
        g->load = value;
        add_step(g, at);
    }
    if (strcmp(what, "limit") || g->changes >= MAX_CHANGES) return;
    g->limit_w = value / 1e3;
    g->change[g->changes++] = (Change){at, g->limit_w};
    if (g->steps) add_step(g, at);
}

/* Lines that other processes have written since. */
static void read_settings(void) {
    struct stat status;
    if (!settings_path[0] || stat(settings_path, &status) || status.st_size <= settings_read) return;
    FILE *file = fopen(settings_path, "r");
    char line[128], what[16];
    long long at_ns;
    unsigned gpu, value;
    if (!file) return;
    fseek(file, settings_read, SEEK_SET);
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "%lld %u %15s %u", &at_ns, &gpu, what, &value) == 4) take_change(at_ns, gpu, what, value);
    settings_read = ftell(file);
    fclose(file);
}

static int write_setting(int gpu, const char *what, unsigned value) {
    char line[128];
    int length = snprintf(line, sizeof line, "%lld %d %s %u\n", sim_time_ns(), gpu, what, value);
    if (!settings_path[0]) {
        take_change(sim_time_ns(), gpu, what, value);
        return SUCCESS;
    }
    int fd = open(settings_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0) return UNKNOWN;
    int written = write(fd, line, length) == length;
    close(fd);
    read_settings();
    return written ? SUCCESS : UNKNOWN;
}

static double limit_at(const Gpu *g, double s) {
    double limit_w = INFINITY; /* until something is set, the curve is what it is */
    for (int i = 0; i < g->changes && g->change[i].at <= s; i++) limit_w = g->change[i].limit_w;
    return limit_w;
}

static double wanted_power_at(const Gpu *g, double s, double limit_w) {
    double period = g->row_s[g->rows - 1], rest = s - floor(s / period) * period;
    int i = row_before(g, rest);
    double width = g->row_s[i + 1] - g->row_s[i], from = capped_w(g->row_w[i], limit_w);
    if (!g->linear || width <= 0) return from;
    return from + (capped_w(g->row_w[i + 1], limit_w) - from) * (rest - g->row_s[i]) / width;
}

static double power_at(const Gpu *g, double s) {
    const Step *step = step_before(g, s);
    return step ? step->power_w : wanted_power_at(g, s, limit_at(g, s));
}

static int is_capped(const Gpu *g, double s) {
    return g->steps ? loaded_w(g) > g->limit_w : wanted_power_at(g, s, INFINITY) > limit_at(g, s);
}

static double energy_under(const Gpu *g, double s, double limit_w) {
    const double *row_j = isinf(limit_w) ? g->row_j : capped((Gpu *)g, limit_w)->row_j;
    double period = g->row_s[g->rows - 1], whole = floor(s / period), rest = s - whole * period;
    int i = row_before(g, rest);
    double from = capped_w(g->row_w[i], limit_w);
    double mean = g->linear ? (from + wanted_power_at(g, s, limit_w)) / 2 : from;
    return whole * row_j[g->rows - 1] + row_j[i] + (rest - g->row_s[i]) * mean;
}

/* By the load, before it by the curve under one limit after the other. */
static double energy_until(const Gpu *g, double s) {
    const Step *step = step_before(g, s);
    if (step) return step->energy_j + step->power_w * (s - step->at);
    double limit_w = INFINITY, energy_j = 0, from = 0;
    for (int i = 0; i < g->changes && g->change[i].at <= s; i++) {
        energy_j += energy_under(g, g->change[i].at, limit_w) - energy_under(g, from, limit_w);
        from = g->change[i].at;
        limit_w = g->change[i].limit_w;
    }
    return energy_j + energy_under(g, s, limit_w) - energy_under(g, from, limit_w);
}

static double mean_power(const Gpu *g, double from, double until) {
    return (energy_until(g, until) - energy_until(g, from)) / (until - from);
}

/* What the sensor reports: all of the time, or the end of each period only. */
static double instant_power(const Gpu *g, double s) {
    double spike = s >= g->spike_from && s < g->spike_until ? g->spike_w : 0;
    if (g->seen_share <= 0) return power_at(g, s - g->delay_s) + spike;
    double end = floor(s / g->seen_period_s) * g->seen_period_s - g->delay_s;
    return mean_power(g, end - g->seen_share * g->seen_period_s, end) + spike;
}

/* A low-pass filter of first order: slices of the past of equal weight, the last of them cut off at an eighth of one. */
static double low_pass_power(const Gpu *g, double s) {
    double sum = 0, until = 0;
    for (int i = 1; i <= SLICES; i++) {
        double from = -g->low_pass_s * log(1 - (i < SLICES ? i : SLICES - 0.125) / SLICES);
        sum += mean_power(g, s - from, s - until);
        until = from;
    }
    return sum / SLICES;
}

static double average_power(const Gpu *g, double s) {
    if (g->refresh_s > 0) s = floor((s - g->refresh_phase_s) / g->refresh_s) * g->refresh_s + g->refresh_phase_s;
    if (g->low_pass_s > 0) return low_pass_power(g, s - g->delay_s);
    if (g->seen_share <= 0) return mean_power(g, s - g->delay_s - g->average_s, s - g->delay_s);
    double sum = 0;
    int periods = fmax(1, round(g->average_s / g->seen_period_s));
    for (int i = 0; i < periods; i++) sum += instant_power(g, s - i * g->seen_period_s);
    return sum / periods;
}

static double power_usage(const Gpu *g, double s) {
    return g->major > 8 || (g->major == 8 && g->minor > 0) ? average_power(g, s) : instant_power(g, s);
}

static unsigned long long counter_mj(const Gpu *g, double s) {
    double zero = 0, t = fmin(s, g->stuck_at);
    unsigned long long value = g->counter_start_mj;
    if (t >= g->reset_at) { zero = g->reset_at; value = 0; }
    if (t >= restart_at + restart_for) { zero = restart_at + restart_for; value = 0; }
    if (t >= g->jump_at) value += g->jump_mj;
    double ticked = fmax(zero, floor(t / g->tick_s + 1e-9) * g->tick_s);
    return value + (unsigned long long)((energy_until(g, ticked) - energy_until(g, zero)) * 1e3 * g->counter_scale);
}

static const Throttle *throttle_at(const Gpu *g, double s) {
    for (int i = 0; i < g->throttles; i++)
        if (s >= g->throttle[i].from && s < g->throttle[i].until) return &g->throttle[i];
    return NULL;
}

/* The truth that no sensor sees: joules of a GPU between two times of the monotonic clock. */
double sim_true_energy_j(int gpu, long long from_ns, long long until_ns) {
    const Gpu *g = &gpus[gpu];
    read_settings();
    return energy_until(g, (until_ns - epoch_ns) / 1e9) - energy_until(g, (from_ns - epoch_ns) / 1e9);
}

/* Load a GPU from now on: 0 is idle, 1000 is all it can. */
int sim_set_load(const char *uuid, unsigned level) {
    if (!loaded && sim_load(getenv("SIMULATED_NVML_SCENARIO"))) return UNKNOWN;
    read_settings();
    for (int gpu = 0; gpu < gpu_count; gpu++)
        if (!strcmp(uuid, gpus[gpu].uuid))
            return gpus[gpu].load_w > 0 && level <= FULL_LOAD ? write_setting(gpu, "load", level) : NOT_SUPPORTED;
    return NOT_FOUND;
}

/* ---- entering a call ---- */

static int driver_state(void) {
    double s = now_s();
    if (!references) return UNINITIALIZED;
    return s >= restart_at && initialised_at < restart_at ? UNINITIALIZED : SUCCESS;
}

static int fault_of(const Handle *h, const char *function) {
    const Gpu *g = &gpus[h->gpu];
    double s = now_s();
    for (int i = 0; i < g->faults; i++) {
        const Fault *f = &g->fault[i];
        if (s < f->from || s >= f->until || (strcmp(f->function, "all") && strcmp(f->function, function))) continue;
        if (f->slow_ms > 0) sim_sleep_ns(f->slow_ms * 1e6);
        if (f->code) return f->code;
    }
    return SUCCESS;
}

static int enter(const Handle *h, const char *function) {
    calls++;
    if (simulated_ns) simulated_ns += call_ns;
    if (driver_state()) return driver_state();
    read_settings();
    return h ? fault_of(h, function) : INVALID_ARGUMENT;
}

#define ENTER(handle, function)                   \
    int error_ = enter(handle, function);         \
    if (error_) return error_;                    \
    const Gpu *g = &gpus[(handle)->gpu];          \
    double s = now_s();                           \
    (void)g; (void)s
#define ENTER_DRIVER if (driver_state()) return driver_state()
#define NOT_ON_MIG(handle) if ((handle)->mig >= 0) return NOT_SUPPORTED

static int copy(char *to, const char *text, unsigned size) {
    if (strlen(text) >= size) return INSUFFICIENT_SIZE;
    strcpy(to, text);
    return SUCCESS;
}

/* ---- NVML: the system ---- */

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    if (!loaded && sim_load(getenv("SIMULATED_NVML_SCENARIO"))) return UNKNOWN;
    double s = now_s();
    if (driver_error) return driver_error;
    if (s >= restart_at && s < restart_at + restart_for) return DRIVER_NOT_LOADED;
    initialised_at = s;
    references++;
    return SUCCESS;
}
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) {
    ENTER_DRIVER;
    references--;
    return SUCCESS;
}
const char *nvmlErrorString(int code) { return code == UNKNOWN ? "Unknown Error" : "Simulated error"; }
int nvmlSystemGetDriverVersion(char *version, unsigned size) { ENTER_DRIVER; return copy(version, driver_version, size); }
int nvmlSystemGetNVMLVersion(char *version, unsigned size) { ENTER_DRIVER; return copy(version, driver_version, size); }
int nvmlSystemGetCudaDriverVersion(int *version) { ENTER_DRIVER; *version = cuda_version; return SUCCESS; }
int nvmlSystemGetCudaDriverVersion_v2(int *version) { return nvmlSystemGetCudaDriverVersion(version); }

/* ---- NVML: which device ---- */

static Handle *handle_of(int gpu, int mig) {
    Handle *h = &handles[gpu][mig + 1];
    h->gpu = gpu;
    h->mig = mig;
    return h;
}
int nvmlDeviceGetCount_v2(unsigned *count) { ENTER_DRIVER; *count = gpu_count; return SUCCESS; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, Handle **h) {
    ENTER_DRIVER;
    if ((int)index >= gpu_count) return INVALID_ARGUMENT;
    *h = handle_of(index, -1);
    return enter(*h, "handle");
}
int nvmlDeviceGetHandleByUUID(const char *uuid, Handle **h) {
    ENTER_DRIVER;
    for (int gpu = 0; gpu < gpu_count; gpu++)
        for (int mig = -1; mig < gpus[gpu].migs; mig++)
            if (!strcmp(uuid, mig < 0 ? gpus[gpu].uuid : gpus[gpu].mig[mig].uuid)) {
                *h = handle_of(gpu, mig);
                return enter(*h, "handle");
            }
    return NOT_FOUND;
}
int nvmlDeviceGetUUID(Handle *h, char *uuid, unsigned size) {
    ENTER(h, "uuid");
    return copy(uuid, h->mig < 0 ? g->uuid : g->mig[h->mig].uuid, size);
}
int nvmlDeviceGetName(Handle *h, char *name, unsigned size) {
    ENTER(h, "name");
    char full[160];
    snprintf(full, sizeof full, h->mig < 0 ? "%s" : "%s MIG %s", g->name, h->mig < 0 ? "" : g->mig[h->mig].profile);
    return copy(name, full, size);
}
int nvmlDeviceGetIndex(Handle *h, unsigned *index) { ENTER(h, "index"); *index = h->gpu; return SUCCESS; }
int nvmlDeviceGetMinorNumber(Handle *h, unsigned *minor) { ENTER(h, "index"); *minor = h->gpu; return SUCCESS; }
int nvmlDeviceGetCudaComputeCapability(Handle *h, int *major, int *minor) {
    ENTER(h, "capability");
    *major = g->major;
    *minor = g->minor;
    return SUCCESS;
}
typedef struct { char legacy[16]; unsigned domain, bus, device, pci_device_id, subsystem_id; char id[32]; } Pci;
int nvmlDeviceGetPciInfo_v3(Handle *h, Pci *pci) {
    ENTER(h, "pci");
    memset(pci, 0, sizeof *pci);
    return copy(pci->id, g->pci, sizeof pci->id);
}
int nvmlDeviceGetMigMode(Handle *h, unsigned *current, unsigned *pending) {
    ENTER(h, "mig");
    *current = *pending = g->has_mig;
    return SUCCESS;
}
int nvmlDeviceGetMaxMigDeviceCount(Handle *h, unsigned *count) { ENTER(h, "mig"); *count = MAX_MIGS; return SUCCESS; }
int nvmlDeviceGetMigDeviceHandleByIndex(Handle *h, unsigned index, Handle **mig) {
    ENTER(h, "mig");
    if ((int)index >= g->migs) return NOT_FOUND;
    *mig = handle_of(h->gpu, index);
    return SUCCESS;
}
int nvmlDeviceIsMigDeviceHandle(Handle *h, unsigned *is) { ENTER(h, "mig"); *is = h->mig >= 0; return SUCCESS; }
int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(Handle *h, Handle **gpu) {
    ENTER(h, "mig");
    *gpu = handle_of(h->gpu, -1);
    return SUCCESS;
}

/* ---- NVML: sensors ---- */

int nvmlDeviceGetPowerUsage(Handle *h, unsigned *milliwatts) {
    ENTER(h, "power");
    NOT_ON_MIG(h);
    *milliwatts = power_usage(g, s) * 1e3;
    return SUCCESS;
}
int nvmlDeviceGetTotalEnergyConsumption(Handle *h, unsigned long long *millijoules) {
    ENTER(h, "energy");
    NOT_ON_MIG(h);
    if (g->tick_s <= 0) return NOT_SUPPORTED;
    *millijoules = counter_mj(g, s);
    return SUCCESS;
}
typedef struct {
    unsigned id, scope;
    long long timestamp, latency_us;
    int type, error;
    union { double d; unsigned u; unsigned long long ull; } value;
} Field;
static int field_error(Handle *h, const Gpu *g, unsigned id) {
    int here = (id == FIELD_INSTANT && g->has_instant) || (id == FIELD_AVERAGE && g->has_average) ||
               (id == FIELD_ENERGY && g->has_energy_field && g->tick_s > 0);
    return here && h->mig < 0 ? fault_of(h, id == FIELD_ENERGY ? "energy" : "power") : NOT_SUPPORTED;
}
int nvmlDeviceGetFieldValues(Handle *h, int count, Field *fields) {
    ENTER(h, "fields");
    for (Field *f = fields; f < fields + count; f++) {
        f->error = field_error(h, g, f->id);
        if (f->error == GPU_IS_LOST || f->error == UNINITIALIZED) return f->error;
        f->type = f->id == FIELD_ENERGY ? TYPE_UNSIGNED_LONG_LONG : TYPE_UNSIGNED_INT;
        if (f->error) continue;
        if (f->id == FIELD_ENERGY) f->value.ull = counter_mj(g, s);
        else f->value.u = (f->id == FIELD_INSTANT ? instant_power(g, s) : average_power(g, s)) * 1e3;
    }
    return SUCCESS;
}
static double temperature_at(const Gpu *g, double s) { /* follows the mean power of the last 10 s */
    return g->cool_c + (g->hot_c - g->cool_c) * mean_power(g, s - 10, s) / g->default_limit_w;
}
int nvmlDeviceGetTemperature(Handle *h, int sensor, unsigned *celsius) {
    (void)sensor;
    ENTER(h, "temperature");
    *celsius = temperature_at(g, s);
    return SUCCESS;
}
typedef struct { unsigned version; int sensor, celsius; } Temperature;
int nvmlDeviceGetTemperatureV(Handle *h, Temperature *temperature) {
    ENTER(h, "temperature");
    temperature->celsius = temperature_at(g, s);
    return SUCCESS;
}
typedef struct { unsigned gpu, memory; } Rates;
int nvmlDeviceGetUtilizationRates(Handle *h, Rates *rates) {
    ENTER(h, "utilisation");
    NOT_ON_MIG(h);
    rates->gpu = fmin(100, 100 * power_at(g, s) / g->limit_w);
    rates->memory = rates->gpu / 2;
    return SUCCESS;
}
typedef struct { unsigned long long total, free, used; } Memory;
int nvmlDeviceGetMemoryInfo(Handle *h, Memory *memory) {
    ENTER(h, "memory");
    memory->total = (h->mig < 0 ? g->memory_mib : g->mig[h->mig].memory_mib) * 1048576ULL;
    memory->used = g->used_mib * 1048576ULL;
    if (memory->used > memory->total) memory->used = memory->total;
    memory->free = memory->total - memory->used;
    return SUCCESS;
}
int nvmlDeviceGetClockInfo(Handle *h, int kind, unsigned *mhz) {
    ENTER(h, "clocks");
    const Throttle *t = throttle_at(g, s);
    double load = fmin(1, power_at(g, s) / g->limit_w);
    *mhz = kind == 2 ? g->memory_mhz : t ? t->sm_mhz : g->locked_mhz ? g->locked_mhz : (unsigned)(g->sm_min + (g->sm_max - g->sm_min) * load);
    return SUCCESS;
}
int nvmlDeviceGetMaxClockInfo(Handle *h, int kind, unsigned *mhz) {
    ENTER(h, "clocks");
    *mhz = kind == 2 ? g->memory_mhz : g->sm_max;
    return SUCCESS;
}
int nvmlDeviceGetApplicationsClock(Handle *h, int kind, unsigned *mhz) { return nvmlDeviceGetMaxClockInfo(h, kind, mhz); }
int nvmlDeviceGetCurrentClocksEventReasons(Handle *h, unsigned long long *reasons) {
    ENTER(h, "throttle");
    const Throttle *t = throttle_at(g, s);
    *reasons = t ? t->reasons : is_capped(g, s) ? THROTTLE_POWER_CAP : power_at(g, s) < 0.2 * g->limit_w ? THROTTLE_IDLE : 0;
    return SUCCESS;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(Handle *h, unsigned long long *reasons) {
    return nvmlDeviceGetCurrentClocksEventReasons(h, reasons);
}
int nvmlDeviceGetEnforcedPowerLimit(Handle *h, unsigned *mw) { ENTER(h, "limit"); *mw = g->limit_w * 1e3; return SUCCESS; }
int nvmlDeviceGetPowerManagementLimit(Handle *h, unsigned *mw) { return nvmlDeviceGetEnforcedPowerLimit(h, mw); }
int nvmlDeviceGetPowerManagementDefaultLimit(Handle *h, unsigned *mw) {
    ENTER(h, "limit");
    *mw = g->default_limit_w * 1e3;
    return SUCCESS;
}
int nvmlDeviceGetPowerManagementLimitConstraints(Handle *h, unsigned *least_mw, unsigned *most_mw) {
    ENTER(h, "limit");
    *least_mw = g->least_limit_w * 1e3;
    *most_mw = g->default_limit_w * 1e3;
    return SUCCESS;
}
int nvmlDeviceSetPowerManagementLimit(Handle *h, unsigned mw) {
    ENTER(h, "set_limit");
    NOT_ON_MIG(h);
    if (mw < g->least_limit_w * 1e3 || mw > g->default_limit_w * 1e3) return INVALID_ARGUMENT;
    return write_setting(h->gpu, "limit", mw);
}
int nvmlDeviceGetSupportedMemoryClocks(Handle *h, unsigned *count, unsigned *mhz) {
    ENTER(h, "clocks");
    unsigned room = *count;
    *count = 1;
    if (!mhz || room < 1) return INSUFFICIENT_SIZE;
    *mhz = g->memory_mhz;
    return SUCCESS;
}
int nvmlDeviceGetSupportedGraphicsClocks(Handle *h, unsigned memory_mhz, unsigned *count, unsigned *mhz) {
    ENTER(h, "clocks");
    unsigned room = *count;
    if (memory_mhz != g->memory_mhz) return INVALID_ARGUMENT;
    *count = (g->sm_max - g->sm_min) / CLOCK_STEP_MHZ + 1;
    if (!mhz || room < *count) return INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < *count; i++) mhz[i] = g->sm_max - i * CLOCK_STEP_MHZ;
    return SUCCESS;
}
int nvmlDeviceSetGpuLockedClocks(Handle *h, unsigned least_mhz, unsigned most_mhz) {
    ENTER(h, "set_clocks");
    NOT_ON_MIG(h);
    if (least_mhz > most_mhz || most_mhz > g->sm_max) return INVALID_ARGUMENT;
    return write_setting(h->gpu, "clock", most_mhz - (g->sm_max - most_mhz) % CLOCK_STEP_MHZ);
}
int nvmlDeviceResetGpuLockedClocks(Handle *h) {
    ENTER(h, "set_clocks");
    NOT_ON_MIG(h);
    return write_setting(h->gpu, "clock", 0);
}

/* ---- NVML: modes ---- */

int nvmlDeviceGetEccMode(Handle *h, int *current, int *pending) {
    ENTER(h, "modes");
    *current = *pending = g->ecc;
    return SUCCESS;
}
int nvmlDeviceGetPersistenceMode(Handle *h, int *mode) { ENTER(h, "modes"); *mode = g->persistence; return SUCCESS; }
int nvmlDeviceGetComputeMode(Handle *h, int *mode) { ENTER(h, "modes"); *mode = g->compute_mode; return SUCCESS; }
int nvmlDeviceGetNumaNodeId(Handle *h, int *node) { ENTER(h, "modes"); *node = 0; return SUCCESS; }
int nvmlDeviceGetC2cModeInfoV(Handle *h, void *mode) { (void)mode; ENTER(h, "modes"); return NOT_SUPPORTED; }
typedef struct { unsigned pid; unsigned long long memory; unsigned gpu_instance, compute_instance; } Process;
int nvmlDeviceGetComputeRunningProcesses_v3(Handle *h, unsigned *count, Process *processes) {
    ENTER(h, "processes");
    unsigned room = *count;
    *count = g->processes;
    if (!g->processes) return SUCCESS;
    if (room < *count) return INSUFFICIENT_SIZE;
    for (int i = 0; i < g->processes; i++) processes[i] = (Process){g->pid[i], 1ULL << 30, 0, 0};
    return SUCCESS;
}
