#include "launcher/command_line.h"

int main(int argc, char** argv) { return cohort::RunCommandLine(argc, argv); }
